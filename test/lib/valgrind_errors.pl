# Prints those errors in XML files of valgrind that came about while code of
# the extension was running, and fails if there are any.  All other errors are
# PostgreSQL's own affair.

use strict;
use warnings;

my $found = 0;

foreach my $name (@ARGV)
{
	open my $file, '<', $name or die "$name: $!\n";
	my $xml = do { local $/; <$file> };

	foreach my $error ($xml =~ m{<error>(.*?)</error>}sg)
	{
		next unless $error =~ m{<obj>[^<]*/vali_blob\.so</obj>};
		my ($what) = $error =~ m{<what>(.*?)</what>}s;
		print $what // 'error', "\n";
		foreach my $frame ($error =~ m{<frame>(.*?)</frame>}sg)
		{
			my %in = $frame =~ m{<(fn|file|line)>(.*?)</\1>}sg;
			print '    ', $in{fn} // '?', $in{file} ? " ($in{file}:$in{line})" : '', "\n";
		}
		$found++;
	}
}
exit($found > 0);
