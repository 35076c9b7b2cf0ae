# The upload endpoints to copy from, in Python, Go and Java: one table of answers for all of
# them; uploads by tus-js-client over connections that break, to two processes with one
# folder, which are killed again and again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Digest::SHA;
use File::Path;
use IO::Socket::INET;
use IPC::Run;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use UploadTest;

my $seed = $ENV{RANDOM_SEED} || time;
my $examples = "$FindBin::Bin/../../examples/endpoints";
my $tmp = "$PostgreSQL::Test::Utils::tmp_check/endpoints";
my $limit = 10 * $PostgreSQL::Test::Utils::timeout_default;
my $jars = join ':', glob '/usr/share/java/{postgresql,HikariCP,slf4j-api}.jar';
my ($node, $name, $folder, $start, @ports, @servers, %answer);

note "RANDOM_SEED=$seed";
srand $seed;
mkdir $tmp or die "$tmp: $!";
$ENV{NO_PROXY} = '127.0.0.1';
$ENV{NODE_EXTRA_CA_CERTS} = '/etc/ssl/certs/ca-certificates.crt';

# --- the servers

# How each is built, the command that starts it, and what it answers to a transfer encoding
# and to a version of HTTP that are unknown: some libraries answer these before the endpoint.
my %languages = (
	python => {
		ready => sub { run_log([ '/usr/bin/python3', '-c', 'import psycopg, psycopg_pool' ]) },
		command => [ '/usr/bin/python3', "$examples/python/upload_server.py" ],
		encoding => 411,
		version => 400,
		uri => 'postgresql://upload_server@127.0.0.1:%d/python' },
	go => {
		ready => sub {
			local %ENV = (%ENV, GO111MODULE => 'off', GOPATH => '/usr/share/gocode', GOCACHE => "$tmp/cache", GOFLAGS => '');
			return -d '/usr/share/gocode/src/github.com/lib/pq' && run_log([ 'go', 'build', '-o', "$tmp/go_server", glob "$examples/go/*.go" ]);
		},
		command => ["$tmp/go_server"],
		encoding => 501,
		version => 505,
		uri => 'postgres://upload_server@127.0.0.1:%d/go?sslmode=disable' },
	java => {
		ready => sub { $jars =~ /Hikari/ && run_log([ 'javac', '-cp', $jars, '-d', "$tmp/java_classes", glob "$examples/java/*.java" ]) },
		command => [ 'java', '-XX:TieredStopAtLevel=1', '-cp', "$jars:$tmp/java_classes", 'UploadServer' ],
		encoding => 501,
		version => 404,
		uri => 'jdbc:postgresql://127.0.0.1:%d/java?user=upload_server' });

# Start one, with a folder of its own, and by a command that runs commands, if they are given.
sub start_server
{
	my ($n, $where, @by) = @_;

	$servers[$n] = IPC::Run::start(
		[ @by, @{ $languages{$name}{command} }, $ports[$n], $where // $folder, sprintf $languages{$name}{uri}, $node->port ],
		'<', \undef, '>>', "$tmp/$name.log", '2>&1');
	return;
}

sub wait_for_server
{
	my ($n) = @_;

	wait_until("the server in $name", sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ports[$n]") });
	# on a busy machine its first connection to the database may take longer than it waits
	wait_until("the server in $name to have the database", sub { request($n, 'HEAD', '/uploads/00000000-0000-4000-8000-000000000000') eq '404' });
	return;
}

sub end_server
{
	my ($n) = @_;

	$servers[$n]->kill_kill(grace => 0) if $servers[$n];
	return;
}

END
{
	my $status = $?;
	$_->kill_kill(grace => 0) foreach grep { defined } @servers;
	$? = $status;
}

# --- a client of which the test knows each byte

# Send the head of a request.  Returns the connection.
sub send_head
{
	my ($n, $method, $path, %headers) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ports[$n]", Timeout => $limit) or die "no connection: $!";
	my $version = delete $headers{version} // '1.1';

	$headers{'Tus-Resumable'} //= '1.0.0';
	$socket->print("$method $path HTTP/$version\r\nHost: 127.0.0.1\r\n",
		(map { $headers{$_} eq '' ? () : "$_: $headers{$_}\r\n" } sort keys %headers), "\r\n");
	$socket->flush;
	return $socket;
}

# Read the answer to a request; returns its status.
sub read_answer
{
	my ($socket, $method) = @_;
	my $status = 'none';

	%answer = ();
	while (defined(my $line = $socket->getline))
	{
		$status = $1 if $line =~ m{^HTTP/1\.1 (\d+)} && $status eq 'none';
		$answer{lc $1} = $2 if $line =~ /^([\w-]+): (.*?)\r?$/;
		last if $line =~ /^\r?$/ && $status ne '100';
	}
	$answer{body} = '';
	read $socket, $answer{body}, $answer{'content-length'} if $answer{'content-length'} && $method ne 'HEAD';
	return $status;
}

sub request
{
	my ($n, $method, $path, $headers, $body) = @_;
	my $socket = send_head($n, $method, $path, defined $body ? ('Content-Length' => length $body) : (), %{ $headers // {} });

	$socket->print($body // '');
	$socket->flush;
	return read_answer($socket, $method);
}

my %chunked = ('Transfer-Encoding' => 'chunked', 'Content-Length' => '');
my %bytes = ('Content-Type' => 'application/offset+octet-stream');

sub create
{
	my ($size, %headers) = @_;

	request(0, 'POST', '/uploads', { 'Upload-Length' => $size, %headers }, '') eq '201' or die "not created: $answer{body}";
	return $answer{location} =~ s{.*/}{}r;
}

sub patch
{
	my ($n, $id, $offset, $body) = @_;

	return request($n, 'PATCH', "/uploads/$id", { %bytes, 'Upload-Offset' => $offset }, $body);
}

sub sql { return $node->safe_psql($name, @_); }

sub content
{
	my ($id) = @_;
	my $file = sql("SELECT result->>'file' FROM get_upload('$id')");

	return $file ? slurp_file("$folder/$file") : 'none';
}

# --- the answers

sub check_answers
{
	my $ten = create(10);
	my $complete = create(3);
	my $aborted = create(10);
	my $expired = create(10);
	my $other = create(10, 'X-Remote-User' => 'alice');
	my $key = '00000000-0000-4000-8000-00000000000a';
	my $nobody = '00000000-0000-4000-8000-00000000000b';
	my $long = encode_base64('x' x 2049, '');

	is(patch(0, $ten, 0, 'abcd'), '204', "$name: bytes");
	is($answer{'upload-offset'}, '4', "$name: ... and where to go on");
	like($answer{'upload-expires'}, qr/^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/, "$name: ... and by when");
	is(patch(1, $complete, 0, 'abc'), '204', "$name: all bytes, sent to another server");
	is(content($complete), 'abc', "$name: the file is whole");
	sql("SELECT abort_upload('$aborted'); UPDATE upload_session SET expires_at = '2000-01-01' WHERE upload_id = '$expired'");

	foreach (
		[ 'OPTIONS', '/uploads', {}, undef, 204 ],
		[ 'HEAD', "/uploads/$ten", {}, undef, 200, 'upload-offset' => 4, 'upload-length' => 10, 'cache-control' => 'no-store' ],
		[ 'HEAD', "/uploads/$complete", {}, undef, 200, 'upload-offset' => 3 ],
		[ 'HEAD', "/uploads/$aborted", {}, undef, 410 ],
		[ 'HEAD', "/uploads/$expired", {}, undef, 410 ],
		[ 'HEAD', "/uploads/$nobody", {}, undef, 404 ],
		[ 'HEAD', "/uploads/$other", {}, undef, 404 ],
		[ 'HEAD', "/uploads/$other", { 'X-Remote-User' => 'alice' }, undef, 200 ],
		[ 'HEAD', "/uploads/$ten", { 'Tus-Resumable' => '' }, undef, 412, 'tus-version' => '1.0.0' ],
		[ 'HEAD', "/uploads/$ten", { 'Tus-Resumable' => '0.2.2' }, undef, 412 ],
		[ 'HEAD', '/uploads/../../etc/passwd', {}, undef, 404 ],
		[ 'HEAD', '/uploads/%00', {}, undef, 404 ],
		[ 'HEAD', '/', {}, undef, 404 ],
		[ 'HEAD', "/$ten", {}, undef, 404 ],
		[ 'HEAD', "/uploads$ten", {}, undef, 404 ],
		[ 'HEAD', "/uploads/$ten/", {}, undef, 404 ],
		[ 'HEAD', "/uploads/" . $ten =~ s/^./sprintf '%%%x', ord $&/er, {}, undef, 404 ],
		[ 'HEAD', "/uploads/$ten", { 'X-Remote-User' => "a\0b" }, undef, 400 ],
		[ 'GET', "/uploads/$ten", {}, undef, 405 ],
		[ 'PUT', '/uploads', {}, '', 405 ],
		(map { [ $_, "/uploads/$ten", {}, undef, 405 ] } 'BREW', 'TRACE', 'handle_request'),
		[ 'HEAD', "/uploads/$nobody", { version => '2.0' }, undef, $languages{$name}{version} ],
		[ 'POST', '/uploads', { 'Transfer-Encoding' => 'gzip', 'Content-Length' => '' }, '', $languages{$name}{encoding} ],
		[ 'POST', "/uploads/$ten", { 'X-HTTP-Method-Override' => 'HEAD' }, '', 200 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 0 }, 'abcd', 409 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 3 }, 'x', 409 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 5 }, 'x', 409 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 4 }, 'x' x 7, 413 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 4 }, 'x' x 1_000_000, 413 ],
		[ 'PATCH', "/uploads/$ten", { 'Content-Type' => 'text/plain', 'Upload-Offset' => 4 }, 'x', 415 ],
		[ 'PATCH', "/uploads/$ten", { 'Upload-Offset' => 4 }, 'x', 415 ],
		[ 'PATCH', "/uploads/$ten", { %bytes }, 'x', 400 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 4 }, undef, 411 ],
		(map { [ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => $_ }, 'x', 400 ] } '-1', '+4', '4.0', 'x', '9' x 30, '0x4'),
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 4, %chunked }, "3\r\nxyz\r\n0\r\n\r\n", 411 ],
		[ 'PATCH', "/uploads/$ten", { %bytes, 'Upload-Offset' => 4 }, '', 204, 'upload-offset' => 4 ],
		[ 'PATCH', "/uploads/$complete", { %bytes, 'Upload-Offset' => 3 }, '', 204, 'upload-offset' => 3 ],
		[ 'PATCH', "/uploads/$complete", { %bytes, 'Upload-Offset' => 3 }, 'x', 413 ],
		[ 'PATCH', "/uploads/$complete", { %bytes, 'Upload-Offset' => 0 }, 'abc', 409 ],
		[ 'PATCH', "/uploads/$aborted", { %bytes, 'Upload-Offset' => 0 }, 'x', 410 ],
		[ 'PATCH', "/uploads/$expired", { %bytes, 'Upload-Offset' => 0 }, 'x', 410 ],
		[ 'PATCH', "/uploads/$nobody", { %bytes, 'Upload-Offset' => 0 }, 'x', 404 ],
		[ 'PATCH', "/uploads/$other", { %bytes, 'Upload-Offset' => 0 }, 'x', 404 ],
		[ 'POST', '/uploads', {}, '', 400 ],
		(map { [ 'POST', '/uploads', { 'Upload-Length' => $_ }, '', 400 ] } '-1', '+5', 'x', '1e3', '9' x 19, '9' x 30),
		[ 'POST', '/uploads', { 'Upload-Length' => '900000000000000000' }, '', 413 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => 'filename Y2F0' }, '', 201 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => "is_secret, filename Y2F0,filetype dGV4dA==" }, '', 201 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => 'filename %%%' }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => 'filename /w==' }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => 'filename AA==' }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => "filename $long" }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Upload-Metadata' => "filename\0 Y2F0" }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'X-Remote-User' => "a\0b" }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, %chunked }, "0\r\n\r\n", 411 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Idempotency-Key' => $key }, '', 201, location => "/uploads/$key" ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Idempotency-Key' => $key }, '', 201, location => "/uploads/$key" ],
		[ 'POST', '/uploads', { 'Upload-Length' => 11, 'Idempotency-Key' => $key }, '', 409 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Idempotency-Key' => '../x' }, '', 400 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'Idempotency-Key' => $aborted }, '', 410 ],
		[ 'POST', '/uploads', { 'Upload-Length' => 10, 'X-Remote-User' => 'bob' }, '', 413 ],
		[ 'DELETE', "/uploads/$nobody", {}, undef, 404 ],
		[ 'DELETE', "/uploads/$other", {}, undef, 404 ],
		[ 'DELETE', "/uploads/$complete", {}, undef, 204 ],
		[ 'DELETE', "/uploads/$complete", {}, undef, 404 ])
	{
		my ($method, $path, $headers, $body, $expected, %expected) = @$_;
		my $status = request(0, $method, $path, $headers, $body);
		my $text = substr "$method $path " . join(' ', map { "$_: $headers->{$_}" } sort keys %$headers) =~ s/\0/NUL/gr, 0, 120;

		is($status, $expected, "$name: $expected for $text") or diag $answer{body} // '';
		is($answer{$_}, $expected{$_}, "$name: ... with $_") foreach sort keys %expected;
	}
	is(patch(0, $ten, 4, 'efghij'), '204', "$name: none of that has changed the upload");
	is(content($ten), 'abcdefghij', "$name: ... nor its bytes");
	foreach my $garbage ("GET\r\n\r\n", "\x16\x03\x01\x00\xa5\x01\r\n\r\n", "PATCH /uploads/$ten HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n")
	{
		my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ports[0]");

		$socket->print($garbage);
		$socket->flush;
		shutdown $socket, 1;
		like(read_answer($socket, 'GET'), qr/^(4\d\d|none)$/, "$name: what is not HTTP is refused");
	}
	return;
}

# Where a request ends is not guessed: what a proxy has taken for a part of it would become a
# request of its own, with any owner in it.
sub check_framing
{
	my $hidden = "POST /uploads HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nX-Remote-User: alice\r\nUpload-Length: 1\r\n\r\n";
	my $size = sprintf "%x\r\n", length $hidden;
	my $id = create(1000);

	foreach my $what ('POST /uploads', "PATCH /uploads/$id")
	{
		foreach (
			[ 'chunks and a length', [ 'Content-Length: ' . length $size, 'Transfer-Encoding: chunked' ], "$size$hidden\r\n0\r\n\r\n" ],
			[ 'two lengths', [ 'Content-Length: 0', 'Content-Length: ' . length $hidden ], $hidden ],
			[ 'a length that is no number', [ 'Content-Length: -1' ], $hidden ],
			[ 'a line that is no header', [ 'x', 'Content-Length: ' . length $hidden ], $hidden ])
		{
			my ($case, $framing, $body) = @$_;
			my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ports[0]");

			$socket->print("$what HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 10\r\nUpload-Offset: 0\r\n",
				"Content-Type: $bytes{'Content-Type'}\r\n", (map { "$_\r\n" } @$framing), "\r\n$body");
			$socket->flush;
			shutdown $socket, 1;
			like(join(' ', join('', <$socket>) =~ m{^HTTP/1\.1 (\d+)}mg), qr/^4\d\d$/, "$name: one refusal of $what with $case");
		}
	}
	is(sql("SELECT uploaded_bytes FROM get_upload('$id')"), 0, "$name: nothing of that was stored");
	is(sql("SELECT count(*) FROM upload_session WHERE owner = 'alice' AND total_size = 1"), 0, "$name: ... nor started");
	return;
}

# What happens to an upload between the first and the last byte of a request decides its answer.
sub check_races
{
	foreach (
		[ 'nothing', sub { }, 204, 'abcdef' ],
		[ 'replayed', sub { is(patch(1, $_[0], 0, 'abcdef'), '204', "$name: a second client is faster") }, 409, 'abcdef' ],
		[ 'conflict', sub { is(patch(1, $_[0], 0, 'abc'), '204', "$name: a second client is faster, with less") }, 409 ],
		[ 'ended', sub { sql("BEGIN; SELECT abort_upload('$_[0]'); DELETE FROM upload_reclaim; COMMIT") }, 410 ],
		[ 'expired', sub { sql("UPDATE upload_session SET expires_at = '2000-01-01' WHERE upload_id = '$_[0]'") }, 410 ],
		[ 'not_found', sub { sql("DELETE FROM upload_session WHERE upload_id = '$_[0]'") }, 404 ],
		[ 'fenced', sub { sql("SELECT acquire_upload_lease('$_[0]', 'somebody')") }, 423 ],
		[ 'too_large', sub { sql("UPDATE upload_session SET total_size = 4 WHERE upload_id = '$_[0]'") }, 413 ])
	{
		my ($outcome, $meanwhile, $expected, $content) = @$_;
		my $id = create(6);
		my $socket = send_head(0, 'PATCH', "/uploads/$id", %bytes, 'Upload-Offset' => 0, 'Content-Length' => 6);
		my $home = sql("SELECT provider_data->>'folder' FROM get_upload('$id')");

		$socket->print('abc');
		$socket->flush;
		wait_until('the request to begin', sub { glob "$folder/$home/*" });
		$meanwhile->($id);
		$socket->print('def');
		$socket->flush;
		is(read_answer($socket, 'PATCH'), $expected, "$name: $expected for $outcome");
		is(content($id), $content, "$name: ... and the file is right") if $content;
		# nothing is to be freed while the request is under way
		rmtree("$folder/$home") if $outcome eq 'ended' || $outcome eq 'not_found';
	}

	# a piece that is exactly one that is confirmed, while bytes are missing: either file will do
	my $id = create(8);
	my $socket = send_head(0, 'PATCH', "/uploads/$id", %bytes, 'Upload-Offset' => 0, 'Content-Length' => 6);
	my $home = sql("SELECT provider_data->>'folder' FROM get_upload('$id')");
	$socket->print('abc');
	$socket->flush;
	wait_until('the request to begin', sub { glob "$folder/$home/*" });
	is(patch(1, $id, 0, 'abcdef'), '204', "$name: a second client is faster");
	$socket->print('def');
	$socket->flush;
	is(read_answer($socket, 'PATCH'), '409', "$name: 409 for replaced");
	is(patch(0, $id, 6, 'gh'), '204', "$name: the rest");
	is(content($id), 'abcdefgh', "$name: ... and the file is right");

	# a row that is locked for longer than lock_timeout
	$id = create(6);
	my $session = $node->background_psql($name);
	$session->query_safe("BEGIN; SELECT upload_id FROM upload_session WHERE upload_id = '$id' FOR UPDATE");
	is(patch(0, $id, 0, 'abc'), '423', "$name: 423 for a locked row");
	is($answer{'retry-after'}, '1', "$name: ... and when to try again");
	$session->query_safe('ROLLBACK');
	$session->quit;

	# a client that goes away in the middle
	$socket = send_head(0, 'PATCH', "/uploads/$id", %bytes, 'Upload-Offset' => 0, 'Content-Length' => 6);
	$socket->print('abc');
	$socket->close;
	wait_until('what has come to be confirmed', sub { request(1, 'HEAD', "/uploads/$id") eq '200' && $answer{'upload-offset'} == 3 });
	is(patch(0, $id, 3, 'def'), '204', "$name: a client that went away goes on");
	is(content($id), 'abcdef', "$name: ... and the file is right");

	# a process that was killed before it has completed what is confirmed
	$id = create(3);
	$home = sql("SELECT provider_data->>'folder' FROM get_upload('$id')");
	append_to_file("$folder/$home/piece", 'abc');
	sql("SELECT advance_upload('$id', 0, 3, etag => 'piece')");
	is(request(1, 'HEAD', "/uploads/$id"), '200', "$name: all bytes are confirmed");
	is(content($id), 'abc', "$name: ... and the file is there before the client knows");

	$id = create(0);
	is(content($id), '', "$name: an empty file is complete at once");
	return;
}

# Whatever ends without the file leaves nothing in the folder.
sub check_reclaim
{
	my ($kept, $aborted, $deleted, $expired) = map { create(10) } 1 .. 4;

	patch(0, $_, 0, 'abc') foreach $kept, $aborted, $deleted, $expired;
	sql("SELECT abort_upload('$aborted'); UPDATE upload_session SET expires_at = '2000-01-01' WHERE upload_id = '$expired'; SELECT sweep_uploads()");
	is(request(0, 'DELETE', "/uploads/$deleted"), '204', "$name: deleted");
	sql(q{INSERT INTO upload_reclaim (reason, upload_id, path, provider_data) VALUES ('aborted', 'x', 'x', '{"folder": "../java"}')});
	wait_until('the queue to be done', sub { sql('SELECT count(*) FILTER (WHERE attempts = 0), count(*) FROM upload_reclaim') eq '0|1' });
	like(sql('SELECT last_error FROM upload_reclaim'), qr/folder|UUID/i, "$name: what is no folder of an upload is left alone");
	sql('DELETE FROM upload_reclaim');
	is( join(' ', sort map { s{.*/}{}r } glob "$folder/*"),
		sql(q{SELECT string_agg(provider_data->>'folder', ' ' ORDER BY provider_data->>'folder' COLLATE "C")
			FROM upload_session WHERE status IN ('pending', 'in_progress', 'complete')}),
		"$name: of uploads that have ended without the file, nothing is left");
	is(sql(q{SELECT count(*) FROM upload_session WHERE status IN ('aborted', 'expired')}) > 1, 1, "$name: ... and some have");
	is(patch(0, $kept, 3, 'defghij'), '204', "$name: another upload goes on");
	return;
}

# The database goes away, and comes back.
sub check_database
{
	my $id = create(6);
	my $before = -s "$tmp/$name.log";
	my $logged = sub { grep { m{connect|EOF|shutting down|I/O error}i } split /\n/, substr slurp_file("$tmp/$name.log"), $before };

	$node->stop('immediate');
	is(patch(0, $id, 0, 'abc'), '503', "$name: 503 without the database");
	is($answer{'retry-after'}, '1', "$name: ... and when to try again");
	wait_until('both to be logged', sub { (grep { /reclaim/ } $logged->()) && grep { !/reclaim/ } $logged->() });
	$node->start;
	wait_until('the server to reconnect', sub { request(0, 'HEAD', "/uploads/$id") eq '200' });
	wait_until('the upload to go on', sub { patch(0, $id, 0, 'abcdef') eq '204' });
	is(content($id), 'abcdef', "$name: the upload goes on afterwards");
	return;
}

# A disk that is full: the server says so, keeps nothing that is not confirmed, as that would
# keep the disk full, and goes on once there is room.
sub check_full_disk
{
	my $small = "$folder-small";
	my @by = ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', $small);

	mkdir $small or die "$small: $!";
	skip 'this user cannot mount a small file system', 1 if !run_log([ @by, 'true' ]);
	end_server($_) foreach 0, 1;    # they would take what is in the queue
	start_server(2, $small, @by);
	wait_for_server(2);
	my ($large, $other) = map {
		is(request(2, 'POST', '/uploads', { 'Upload-Length' => $_ }, ''), '201', "$name: an upload to a small disk");
		$answer{location} =~ s{.*/}{}r;
	} 2_000_000, 400_000;

	is(patch(2, $large, 0, 'x' x 1_060_000), '507', "$name: 507 for a full disk");
	is(request(2, 'HEAD', "/uploads/$large"), '200', "$name: the upload");
	is($answer{'upload-offset'}, 0, "$name: ... has none of that");
	is(patch(2, $large, 0, 'x' x 300_000), '204', "$name: what was not confirmed has made room");
	is(patch(2, $other, 0, 'y' x 400_000), '507', "$name: there is room for the pieces of a file only");
	is(request(2, 'HEAD', "/uploads/$other"), '507', "$name: ... and it is not done");
	is(patch(2, $large, 300_000, 'x' x 300_000), '204', "$name: half a file has made room");
	like(slurp_file("$tmp/$name.log"), qr/no space left on device/i, "$name: it is in the log");
	is(request(2, 'DELETE', "/uploads/$large"), '204', "$name: the large upload is deleted");
	wait_until('the file to be done', sub { request(2, 'HEAD', "/uploads/$other") eq '200' });
	is(sql("SELECT status FROM get_upload('$other')"), 'complete', "$name: with room enough it is");
	return;
}

# A real client, with files that are larger than a piece.
sub check_client
{
	my @files = map { "$tmp/file$_" } 1 .. 3;
	my ($stdout, $stderr, $killed) = ('', '', 0);
	my $size = 0;

	foreach my $file (@files)
	{
		next if -e $file;
		system_or_bail('dd', 'if=/dev/urandom', "of=$file", 'bs=1000', 'count=' . (9000 + int rand 9000), 'status=none');
	}
	$size += -s $_ foreach @files;

	my $client = IPC::Run::start([ 'node', "$FindBin::Bin/../lib/endpoint_client.js", $seed, "$ports[0],$ports[1]", @files ],
		'<', \undef, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout($limit));
	my $confirmed = sub { sql(q{SELECT coalesce(sum(uploaded_bytes), 0) FROM upload_session WHERE path LIKE '%/file_'}) };
	# one is killed whenever a sixth of all is confirmed since
	while ($client->pumpable)
	{
		$client->pump_nb;
		if ($killed < 5 && $confirmed->() > $size * ($killed + 1) / 7)
		{
			my $n = $killed++ % 2;

			end_server($n);
			start_server($n);
			wait_for_server($n);
		}
		usleep(10_000);
	}
	$client->finish;
	cmp_ok($killed, '>', 2, "$name: servers were killed, $killed of them");
	my ($broken) = $stdout =~ /^broken (\d+)/m;
	cmp_ok($broken // 0, '>', 0, "$name: and connections were broken by the network");
	foreach my $file (@files)
	{
		my ($id) = $stdout =~ /^done \Q$file\E (.*)$/m;

		ok($id, "$name: tus-js-client has uploaded a file") or diag $stdout, $stderr;
		next if !$id;
		is(Digest::SHA->new(256)->addfile("$folder/" . sql("SELECT result->>'file' FROM get_upload('$id')"))->hexdigest,
			Digest::SHA->new(256)->addfile($file)->hexdigest, "$name: ... which has the same SHA-256");
		my $home = sql("SELECT provider_data->>'folder' FROM get_upload('$id')");
		# requests whose connection was broken may still be about to end
		wait_until('the pieces to go', sub { join(' ', map { s{.*/}{}r } glob "$folder/$home/*") eq 'file' });
	}
	return;
}

# --- run

$node = upload_node('main', conf => "listen_addresses = '127.0.0.1'\nvali_blob.max_upload_size = '1GB'");
$node->safe_psql('postgres', q{CREATE ROLE upload_server LOGIN; ALTER ROLE upload_server SET lock_timeout = '200ms'});
my $npm = run_npm('install', '--prefix', $tmp, 'tus-js-client@4.3.1');
$ENV{NODE_PATH} = "$tmp/node_modules";

foreach my $file (glob "$examples/{*,../*}/*.{py,go,java,js}")
{
	cmp_ok(() = slurp_file($file) =~ /\n/g, '<', 200, "short enough to be read: $file" =~ s{/.*/}{}r);
}
foreach (split / /, $ENV{ENDPOINTS} // 'python go java')
{
	$name = $_;
  SKIP:
	{
		skip "what the endpoint in $name needs is not there", 1 if !$languages{$name}{ready}->();

		$folder = "$tmp/$name";
		mkdir $folder or die "$folder: $!";
		$node->safe_psql('postgres', "CREATE DATABASE $name");
		sql(q{CREATE EXTENSION vali_blob; SELECT grant_upload_access('upload_server'); SELECT set_upload_quota('bob', 0)});
		@ports = map { PostgreSQL::Test::Cluster::get_free_port() } 0 .. 2;
		start_server($_) foreach 0, 1;
		wait_for_server($_) foreach 0, 1;

		check_answers();
		check_framing();
		check_races();
		check_reclaim();
		check_database();
	  SKIP:
		{
			skip 'npm cannot install tus-js-client', 1 if !$npm;
			check_client();
		}
	  SKIP:
		{
			check_full_disk();
		}
		end_server($_) foreach 0 .. 2;
		@servers = ();
	}
}

$node->stop;
done_testing();
