# An upload to an S3 server, in parts that come in any order from eight processes,
# which are killed again and again: the object is the file.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $python = '/usr/bin/python3';
my $folder = "$PostgreSQL::Test::Utils::tmp_check/s3";

plan skip_all => 'python3-boto3 and python3-psycopg2 are not there'
  if !run_log([ $python, '-c', 'import boto3, psycopg2' ]);
# The server is a package of npm: s3rver keeps objects in files.  Node.js is to trust
# whom the system trusts.
local $ENV{NODE_EXTRA_CA_CERTS} = '/etc/ssl/certs/ca-certificates.crt';
mkdir $folder or die "$folder: $!";
plan skip_all => 'npm cannot install s3rver'
  if !run_npm('install', '--prefix', $folder, 's3rver@3.7.1');

my $node = upload_node('main');
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $server = IPC::Run::start(
	[ 'node', "$folder/node_modules/s3rver/bin/s3rver.js", '--directory', "$folder/objects", '--address', '127.0.0.1', '--port', $port, '--silent' ],
	'>', "$folder/log", '2>&1');

# A file that does not end with a whole part
my $file = "$folder/file";
system_or_bail('dd', 'if=/dev/urandom', "of=$file", 'bs=1000000', 'count=151', 'status=none');
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port");
	select undef, undef, undef, 0.1;
}

# A proxy is for other addresses than this one.
local $ENV{NO_PROXY} = '127.0.0.1';
my ($stdout, $stderr) = run_command([ $python, "$FindBin::Bin/../lib/s3_upload.py", "http://127.0.0.1:$port", $node->connstr('postgres'), $file ]);
like($stdout, qr/^\d+ killed, 29 parts, the object is the file$/, 'the object is the file')
  or diag $stderr;
like($stdout, qr/^[1-9]/, 'though writers were killed');
is($node->safe_psql('postgres', q{SELECT status, uploaded_bytes, result ? 'etag' FROM get_upload('s3')}), 'complete|151000000|t', 'the upload is complete');

$server->kill_kill;
$node->stop;
done_testing();
