# A release: its installation script never changes again, and all that names its
# version agrees.

use strict;
use warnings;

use Digest::SHA;
use File::Basename;
use FindBin;
use JSON::PP;

use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::Bin/../..";

# Databases have been created with these.
my %released = (
	'vali_blob--1.0.sql' => '2fd8548940d9adf17cba0add18bca5b5a9ec2be26ec6c120c9a14ab7befaa29d',
	'vali_blob--1.0--1.1.sql' => '60c653f32cb4f85301400544e1b1be43c7653ff2711b288ea2ecf3cfe9ed28db');

foreach my $script (sort keys %released)
{
	is(Digest::SHA->new(256)->addfile("$root/sql/$script")->hexdigest, $released{$script},
		"$script is as it was released");
}

my ($control) = slurp_file("$root/vali_blob.control") =~ /^default_version = '(.*)'$/m;
my $meta = decode_json(slurp_file("$root/META.json"));
my @changes = slurp_file("$root/CHANGELOG.md") =~ /^## (\S+ \(.*\))$/mg;
my ($package) = slurp_file("$root/debian/changelog") =~ /^vali-blob \((.*)-[^-]*\) /;

# The scripts that CREATE EXTENSION runs, from the last one to the first.
my %leads_to;
foreach my $script (map { basename($_) } glob "$root/sql/*.sql")
{
	my ($from, $to) = $script =~ /^vali_blob--(?:(.+)--)?(.+)\.sql$/;

	$leads_to{$to} = { name => $script, from => $from };
}
my @path = $leads_to{$control} // ();
while (@path && defined $path[-1]{from})
{
	push @path, $leads_to{ $path[-1]{from} } // last;
}
ok(@path && !defined $path[-1]{from}, "CREATE EXTENSION finds the scripts of the control file's version");

like($meta->{version}, qr/^\Q$control\E\.\d+$/, 'the version of META.json is a release of the control file\'s');
is($package, $meta->{version}, 'the package has it, too');
like($changes[0], qr/^\Q$meta->{version}\E \((?:unreleased|\d{4}-\d\d-\d\d)\)$/, 'the newest one in the CHANGELOG');
unlike($_, qr/unreleased/, "$_ was released") foreach @changes[ 1 .. $#changes ];

# Releases after the first one with these objects change no script.
my ($first) = grep { /^\Q$control\E\.0 / } @changes;
my $is_frozen = !grep { !$released{ $_->{name} } } @path;
is($first =~ /unreleased/ ? 'not frozen' : 'frozen', $is_frozen ? 'frozen' : 'not frozen',
	"the scripts are frozen when, and only when, there is a date: $first");
foreach my $provided (values %{ $meta->{provides} })
{
	is($provided->{version}, $meta->{version}, 'META.json provides it');
	is(basename($provided->{file}), $path[0]{name}, 'with the last script');
	ok(-f "$root/$provided->{$_}", "with $provided->{$_}") foreach 'file', 'docfile';
}

done_testing();
