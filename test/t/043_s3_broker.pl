# The broker for uploads into S3: what it answers; an upload by a browser in parts that come
# in any order, while brokers are killed; what ends without the file leaves nothing in S3.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Digest::MD5;
use Digest::SHA;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use UploadTest;

my $seed = $ENV{RANDOM_SEED} || time;
my $tmp = "$PostgreSQL::Test::Utils::tmp_check/s3_broker";
my $limit = 10 * $PostgreSQL::Test::Utils::timeout_default;
my $part = 5 * 1024 * 1024;
my (@brokers, $s3);

note "RANDOM_SEED=$seed";
srand $seed;
plan skip_all => 'python3-boto3, python3-psycopg and python3-psycopg-pool are not there'
  if !run_log([ '/usr/bin/python3', '-c', 'import boto3, psycopg, psycopg_pool' ]);
$ENV{NO_PROXY} = $ENV{no_proxy} = '127.0.0.1';
$ENV{NODE_EXTRA_CA_CERTS} = '/etc/ssl/certs/ca-certificates.crt';
mkdir $tmp or die "$tmp: $!";
plan skip_all => 'npm cannot install s3rver'
  if !run_npm('install', '--prefix', $tmp, 's3rver@3.7.1');

# No commit waits for the standby, which is not there, but where a role says so.
my $node = upload_node('main', conf => "wal_level = replica\nmax_wal_senders = 1\nsynchronous_standby_names = 'nobody'\nsynchronous_commit = local");
my ($s3_port, @ports) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 4;
$ENV{NODE_PATH} = "$tmp/node_modules";
$ENV{AWS_ACCESS_KEY_ID} = $ENV{AWS_SECRET_ACCESS_KEY} = 'S3RVER';
$ENV{AWS_DEFAULT_REGION} = 'us-east-1';

sub start_broker
{
	my ($n) = @_;

	$brokers[$n] = IPC::Run::start(
		[ '/usr/bin/python3', "$FindBin::Bin/../../examples/s3_broker/broker.py", $ports[$n], 'bucket', "http://127.0.0.1:$s3_port",
			$node->connstr('postgres') . ' user=upload_server' ],
		'<', \undef, '>>', "$tmp/broker.log", '2>&1');
	wait_until('a broker', sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ports[$n]") });
	return;
}

sub restart_broker
{
	my ($n) = @_;

	$brokers[$n]->kill_kill(grace => 0);
	start_broker($n);
	return;
}

END
{
	my $status = $?;
	$_->kill_kill(grace => 0) foreach grep { defined } @brokers, $s3;
	$? = $status;
}

sub sql { return $node->safe_psql('postgres', @_); }
sub new_id { return sql('SELECT gen_random_uuid()'); }

# Ask a broker.  Returns the status, and what the body says.
sub ask
{
	my ($method, $path, $body, %headers) = @_;
	my $answer = HTTP::Tiny->new(timeout => $limit)->request($method, "http://127.0.0.1:$ports[0]/uploads$path",
		{ headers => \%headers, defined $body ? (content => ref $body ? encode_json($body) : $body) : () });

	return ($answer->{status}, $answer->{content} =~ /^\{/ ? decode_json($answer->{content}) : {});
}

# Send a broker whatever text.
sub begin_request
{
	my ($n, $text) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ports[$n]") or die $!;

	print $socket $text;
	$socket->flush;
	return $socket;
}

sub read_status
{
	my ($socket) = @_;

	IO::Select->new($socket)->can_read($limit) or die 'no answer';
	return (split / /, <$socket> // '')[1] // 'nothing';
}

sub put_part
{
	my ($id, $number, $content) = @_;
	my (undef, $signed) = ask('POST', "/$id/sign", { parts => [$number] });
	my $answer = HTTP::Tiny->new->put($signed->{urls}[0], { content => $content });

	return ($answer->{status}, $answer->{headers}{etag});
}

# What S3 has of uploads that are not complete, and of objects
sub stored { return join ' ', scalar(() = glob "$tmp/objects/bucket/._S3rver_uploads/*"), scalar(() = glob "$tmp/objects/bucket/uploads/*_object"); }

sql(q{CREATE ROLE upload_server LOGIN; SELECT grant_upload_access('upload_server'); ALTER ROLE upload_server SET lock_timeout = '200ms'});
$s3 = IPC::Run::start([ 'node', "$FindBin::Bin/../lib/s3_server.js", $s3_port, "$tmp/objects", 'bucket' ], '<', \undef, '>', "$tmp/s3.log", '2>&1');
wait_until('S3', sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$s3_port") });
start_broker($_) foreach 0, 1;
{
	local $ENV{CLIENT_TIMEOUT} = 1;
	start_broker(2);
}

# --- the answers

my ($id, $complete, $aborted, $expired, $other, $nobody) = map { new_id() } 1 .. 6;
my %valid = (name => 'cat', size => $part + 3);
is((ask('POST', '', { %valid, id => $_ }))[0], 201, 'started') foreach $id, $aborted, $expired;
is((ask('POST', '', { %valid, id => $other }, 'X-Remote-User' => 'alice'))[0], 201, 'started by another user');
is((ask('POST', '', { name => 'cat', size => 3, id => $complete }))[0], 201, 'started a small one');
my ($status, $etag) = put_part($complete, 1, 'abc');
is($status, 200, 'S3 takes what is signed');
is((ask('PUT', "/$complete/parts/1", { etag => $etag }))[0], 200, 'confirmed');
is((ask('POST', "/$complete/complete"))[0], 200, 'complete');
sql("UPDATE upload_session SET status = 'aborted' WHERE upload_id = '$aborted'; UPDATE upload_session SET expires_at = '2000-01-01' WHERE upload_id = '$expired'");
my $e = '"0123"';

foreach (
	[ 'GET', "/$id", undef, 200 ],
	[ 'GET', "/$nobody", undef, 404 ],
	[ 'GET', "/$other", undef, 404 ],
	[ 'GET', "/$aborted", undef, 410 ],
	[ 'GET', "/$expired", undef, 410 ],
	[ 'GET', '/../x', undef, 404 ],
	[ 'GET', '', undef, 405 ],
	[ 'PUT', "/$id", {}, 405 ],
	(map { [ $_, "/$id", undef, 405 ] } 'HEAD', 'OPTIONS', 'BREW', 'handle_request'),
	[ 'POST', '', '{', 400 ],
	[ 'POST', '', '[]', 400 ],
	[ 'POST', '', "\xff", 400 ],
	[ 'POST', '', '[' x 50_000, 400 ],
	[ 'POST', '', '{"a":' x 10_000, 400 ],
	[ 'POST', '', 'x' x 100_000, 413 ],
	[ 'POST', '', {}, 400 ],
	[ 'POST', '', { %valid, id => 'x' }, 400 ],
	[ 'POST', '', { %valid, id => 7 }, 400 ],
	[ 'POST', '', { %valid, id => new_id(), name => 'x' x 2049 }, 400 ],
	[ 'POST', '', { %valid, id => new_id(), name => "\0" }, 400 ],
	[ 'POST', '', { %valid, id => new_id(), name => [] }, 400 ],
	(map { [ 'POST', '', qq({"size": 3, "id": "@{[new_id()]}", "name": "$_"}), 400 ] } '\ud800', 'a\udc00', '\udc00\ud800'),
	[ 'POST', '', qq({"size": 3, "id": "$id", "name": "\\ud83d\\ude00"}), 409 ],
	[ 'POST', '', { %valid, id => new_id(), type => "a\nb" }, 400 ],
	(map { [ 'POST', '', { %valid, id => new_id(), size => $_ }, 400 ] } 0, -1, 1.5, '3', JSON::PP::true, 1e15),
	[ 'POST', '', { %valid, id => $id }, 201 ],
	[ 'POST', '', { %valid, id => $id, size => 7 }, 409 ],
	[ 'POST', '', { %valid, id => $aborted }, 410 ],
	[ 'POST', "/$id/sign", {}, 400 ],
	(map { [ 'POST', "/$id/sign", { parts => $_ }, 400 ] } [], [0], [3], ['1'], [ (1) x 101 ], 'x'),
	[ 'POST', "/$id/sign", { parts => [ 1, 2 ] }, 200 ],
	[ 'POST', "/$aborted/sign", { parts => [1] }, 410 ],
	(map { [ 'PUT', "/$id/parts/$_", { etag => $e }, 400 ] } 0, 3, 99999),
	[ 'PUT', "/$id/parts/999999", { etag => $e }, 404 ],
	(map { [ 'PUT', "/$id/parts/1", { etag => $_ }, 400 ] } undef, 'x', 7, '"' . 'a' x 2000 . '"'),
	[ 'PUT', "/$id/parts/1", { etag => $e, sha256 => 'x' }, 400 ],
	[ 'PUT', "/$nobody/parts/1", { etag => $e }, 404 ],
	[ 'PUT', "/$expired/parts/1", { etag => $e }, 410 ],
	[ 'POST', "/$id/complete", undef, 409 ],
	[ 'PUT', "/$id/parts/2", { etag => $e }, 200, outcome => 'advanced', confirmed => 3 ],
	[ 'PUT', "/$id/parts/2", { etag => $e }, 200, outcome => 'replayed', confirmed => 3 ],
	[ 'PUT', "/$id/parts/2", { etag => '"4567"' }, 200, outcome => 'replaced', confirmed => 3 ],
	[ 'PUT', "/$complete/parts/1", { etag => '"4567"' }, 200, outcome => 'replayed' ],
	[ 'POST', "/$complete/complete", undef, 200 ],
	[ 'DELETE', "/$nobody", undef, 404 ],
	[ 'DELETE', "/$other", undef, 404 ])
{
	my ($method, $path, $body, $expected, %expected) = @$_;
	my ($status, $answer) = ask($method, $path, $body);
	my $text = substr "$method $path " . (ref $body ? encode_json($body) : $body // ''), 0, 120;

	is($status, $expected, "$expected for $text") or diag encode_json($answer);
	is($answer->{$_}, $expected{$_}, "... with $_") foreach sort keys %expected;
}
is_deeply((ask('GET', "/$id"))[1]{missing}, [1], 'what is left');

# what no library would send
my $body = encode_json({ %valid, id => new_id() });
my $length = length $body;
my $end = "\r\n\r\n";
is(read_status(begin_request(0, "GET /uploads/$id HTTP/1.1\r\nX-Remote-User: a\0b$end")), 400, '400 for an owner with a null character');
is(read_status(begin_request(0, "POST /uploads HTTP/1.1\r\nX-Remote-User: a\0b\r\nContent-Length: $length$end$body")), 400, '... who starts an upload');
is(read_status(begin_request(2, "POST /uploads HTTP/1.1\r\nContent-Length: 50$end\{\"id\"")), 408, '408 for less than Content-Length says');
is(read_status(begin_request(0, "GET /uploads/$id HTTP/2.0$end")), 400, '400 for a version of HTTP that is unknown');
is(read_status(begin_request(0, "GET$end")), 400, '400 for what is not HTTP');
is(read_status(begin_request(0, "GET /uploads/$id HTTP/1.1$end")), 200, '200 for one that is well');

# S3 has the last word
put_part($id, 1, 'x' x $part);
put_part($id, 2, 'xyz');
is((ask('PUT', "/$id/parts/1", { etag => '"' . Digest::MD5::md5_hex('x' x $part) . '"' }))[1]{ready}, JSON::PP::true, 'all parts are confirmed, one with another ETag than its own');
is((ask('POST', "/$id/complete"))[0], 409, 'S3 refuses to complete');
is((ask('PUT', "/$id/parts/2", { etag => '"' . Digest::MD5::md5_hex('xyz') . '"' }))[1]{outcome}, 'replaced', 'so the part is confirmed with its own');
is((ask('POST', "/$id/complete"))[0], 200, 'which S3 takes');

# a broker that was killed between the two
my $third = new_id();
ask('POST', '', { name => 'cat', size => 3, id => $third });
(undef, $etag) = put_part($third, 1, 'abc');
ask('PUT', "/$third/parts/1", { etag => $etag });
system_or_bail('/usr/bin/python3', '-c', q{
import boto3, sys
s3 = boto3.client("s3", endpoint_url=sys.argv[1])
s3.complete_multipart_upload(Bucket="bucket", Key=sys.argv[2], UploadId=sys.argv[3], MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": sys.argv[4]}]})},
	"http://127.0.0.1:$s3_port", split(/\|/, sql("SELECT provider_data->>'key', provider_data->>'multipart_id' FROM get_upload('$third')")), $etag);
is((ask('POST', "/$third/complete"))[0], 200, 'S3 has completed, and the broker was killed then: again');

# a connection that is lost when an upload was started, and before the broker hears of it
my $lost = new_id();
sql('ALTER ROLE upload_server SET synchronous_commit = on');
restart_broker(0);
$body = encode_json({ %valid, id => $lost });
$length = length $body;
my $socket = begin_request(0, "POST /uploads HTTP/1.1\r\nContent-Length: $length$end$body");
my $waiting = q{FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ 'start_upload'};
wait_until('the commit to wait', sub { sql("SELECT count(*) $waiting") eq '1' });
sql("SELECT pg_terminate_backend(pid) $waiting");
is(read_status($socket), 503, 'the answer of start_upload is lost');
sql('ALTER ROLE upload_server RESET synchronous_commit');
restart_broker(0);
is((ask('POST', '', { %valid, id => $lost }))[0], 201, '... so the browser starts it again');
is((put_part($lost, 1, 'x' x $part))[0], 200, '... and S3 takes its parts');
is((ask('DELETE', "/$lost"))[0], 200, '... until it is deleted');

# --- the reclaim queue

my $deleted = new_id();
ask('POST', '', { %valid, id => $deleted });
put_part($deleted, 2, 'abc');
is((ask('DELETE', "/$deleted"))[0], 200, 'a live one is deleted');
is((ask('DELETE', "/$third"))[0], 200, 'a complete one is deleted');
is((ask('DELETE', "/$third"))[0], 404, '... once');
sql("UPDATE upload_session SET status = 'pending' WHERE upload_id = '$aborted'; SELECT abort_upload('$aborted'); SELECT sweep_uploads();
	INSERT INTO upload_reclaim (reason, upload_id, path, provider_data) VALUES ('aborted', 'x', 'x', '{}'), ('aborted', 'y', 'y', '[]')");
wait_until('the queue to be done', sub { sql('SELECT count(*) FILTER (WHERE last_error IS NULL), count(*) FROM upload_reclaim') eq '0|2' });
like(sql(q{SELECT string_agg(last_error, ' ' ORDER BY id) FROM upload_reclaim}), qr/KeyError.*TypeError/, 'what is not in S3 stays in the queue');
is(stored(), '1 2', 'S3 has one upload that is live, and two objects');

# --- a browser

my $file = "$tmp/file";
system_or_bail('dd', 'if=/dev/urandom', "of=$file", 'bs=1000000', 'count=71', 'status=none');
my ($stdout, $stderr, $killed, $upload) = ('', '', 0, new_id());
my $browser = IPC::Run::start([ 'node', "$FindBin::Bin/../lib/s3_browser.js", $seed, join(',', @ports), $upload, $file ],
	'<', \undef, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout($limit));
while ($browser->pumpable)
{
	$browser->pump_nb;
	if ($killed < 4 && sql("SELECT count(*) FROM list_parts('$upload')") > 3 * $killed)
	{
		restart_broker($killed++ % 2);
	}
	usleep(10_000);
}
$browser->finish;
is($killed, 4, 'brokers were killed');
my ($key) = $stdout =~ /^complete (\S+)$/m;
ok($key, 'the browser has completed its upload') or diag $stdout, $stderr;
is(Digest::SHA->new(256)->addfile("$tmp/objects/bucket/$key._S3rver_object")->hexdigest,
	Digest::SHA->new(256)->addfile($file)->hexdigest, 'the object has the same SHA-256') if $key;
is(sql("SELECT status, uploaded_bytes, (SELECT count(*) FROM list_parts('$upload')) FROM get_upload('$upload')"), 'complete|71000000|14', 'of 14 parts');

# --- without the database, and without S3

$node->stop('immediate');
is((ask('GET', "/$upload"))[0], 503, '503 without the database');
$node->start;
wait_until('the broker to reconnect', sub { (ask('GET', "/$upload"))[0] eq '200' });
$s3->kill_kill(grace => 0);
is((ask('POST', '', { %valid, id => new_id() }))[0], 503, '503 without S3');

$node->stop;
done_testing();
