# Checks the map of the source, a table in CONTRIBUTING.md: every file is in it, and
# none includes one that stands above it.  Takes the names of the files.

use strict;
use warnings;

my %line; # of the map, by the name of a file without .c or .h
my $found = 0;

sub complain
{
	print "$_[0]\n";
	$found++;
	return;
}

sub lines_of
{
	my ($name) = @_;

	open my $file, '<', $name or die "$name: $!\n";
	my @lines = <$file>;
	return @lines;
}

my $in_map = 0;
my $number = 0;
foreach (lines_of('CONTRIBUTING.md'))
{
	$number++;
	$in_map = /^## Map of the source$/ if /^##/;
	next unless $in_map && /^\|([^|]*)\|/;
	$line{$_} = $number foreach $1 =~ /`(\w+)\.[ch]`/g;
}

foreach my $name (@ARGV)
{
	my ($file) = $name =~ m{(\w+)\.[ch]$};

	if (!$line{$file})
	{
		complain("$name is not in the map of the source");
		next;
	}
	foreach (lines_of($name))
	{
		next unless /^#include "(\w+)\.h"/ && $line{$1};
		complain("$name includes $1.h, which stands above it in the map of the source")
		  if $line{$1} < $line{$file};
	}
}
exit($found > 0);
