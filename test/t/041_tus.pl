# The tus server in examples/tus: two processes of it behind one address, which are killed
# again and again while tus-js-client uploads; what it answers to every request; and how
# storage is freed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Digest::SHA;
use File::Path;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IPC::Open2;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $folder = "$PostgreSQL::Test::Utils::tmp_check/tus";
my $library = "$FindBin::Bin/../lib";
my $example = "$FindBin::Bin/../../examples/tus";

# Node.js is to trust whom the system trusts.
local $ENV{NODE_EXTRA_CA_CERTS} = '/etc/ssl/certs/ca-certificates.crt';
system_or_bail('cp', '-r', $example, $folder);
plan skip_all => 'npm cannot install @tus/server and tus-js-client'
  if !run_npm('ci', '--omit=optional', '--prefix', $folder);

my $seed = $ENV{RANDOM_SEED} || time;
note "RANDOM_SEED=$seed";
srand $seed;

# No commit waits for the standby, which is not there, but where a role says so.
my $node = upload_node('main', conf => "vali_blob.sweep = off\nvali_blob.session_ttl = 1h\n"
	  . "wal_level = replica\nmax_wal_senders = 1\nsynchronous_standby_names = 'nobody'\nsynchronous_commit = local");
$node->safe_psql('postgres', q{CREATE ROLE upload_server LOGIN; SELECT grant_upload_access('upload_server')});

# --- the servers

my $storage = "$folder/storage";
mkdir $storage or die "$storage: $!";
my %children;    # what runs, by process id
my @servers = map { { port => PostgreSQL::Test::Cluster::get_free_port() } } 1 .. 2;
my $port = PostgreSQL::Test::Cluster::get_free_port();

# However the test ends, they end with it.
END
{
	my $status = $?;
	kill 'KILL', keys %children;
	$? = $status;
}

# Start a program, with its output in a log.  Returns its process id.
sub start_program
{
	my ($name, $environment, @command) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		%ENV = (%ENV, %$environment);
		open STDOUT, '>>', "$folder/$name.log" or die $!;
		open STDERR, '>&', \*STDOUT or die $!;
		exec @command or die "$command[0]: $!";
	}
	$children{$pid} = $name;
	return $pid;
}

sub wait_for_port
{
	my ($port) = @_;

	wait_until("port $port", sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") });
	return;
}

sub start_server
{
	my ($server) = @_;

	$server->{pid} = start_program("server_$server->{port}", {
			PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGUSER => 'upload_server',
			STORAGE => $storage, PORT => $server->{port}, MAX_SIZE => 20_000_000, PIECE_SIZE => 100_000,
			LEASE => '1 s', LEASE_RENEWAL_MS => 100, KEEP_PARTIAL => '3 s', RECLAIM_MS => 200, FULL => "$folder/full" },
		'node', '--require', "$library/full_disk.js", "$folder/server.js");
	return;
}

# Kill a server, as a power failure would, and start it again.
sub restart_server
{
	my ($server) = @_;

	kill 'KILL', $server->{pid};
	waitpid $server->{pid}, 0;
	delete $children{ $server->{pid} };
	start_server($server);
	wait_for_port($server->{port});
	return;
}

start_server($_) foreach @servers;
start_program('balancer', {}, 'node', "$library/tus_balancer.js", $port, map { $_->{port} } @servers);
wait_for_port($_) foreach $port, map { $_->{port} } @servers;

# --- uploads

my $endpoint = "http://127.0.0.1:$port/files";

sub make_file
{
	my ($name, $size) = @_;

	open my $file, '>:raw', "$folder/$name" or die "$folder/$name: $!";
	print $file map { pack 'L', int rand 2**32 } 1 .. ($size + 3) / 4;
	truncate $file, $size or die $!;
	close $file or die $!;
	return "$folder/$name";
}

sub digest { return Digest::SHA->new(256)->addfile($_[0], 'b')->hexdigest; }

# Where the file of an upload is; that of a final one is in a folder of the attempt to make it.
sub stored
{
	my ($id) = $_[0] =~ m{([^/]*)$};
	my ($file) = glob "$storage/$id*/file";

	return $file // "$storage/$id/file";
}

# Upload files with tus-js-client, and kill servers meanwhile.  Returns their URLs.
sub upload
{
	my ($kills, @uploads) = @_;
	my $total = 0;
	my %urls;
	my $text = '';

	$total += -s $_->{file} foreach @uploads;
	my @places = sort { $a <=> $b } map { rand 0.9 * $total } 1 .. $kills;
	my $list = '[' . join(', ', map { qq({"file": "$_->{file}", "options": $_->{options}}) } @uploads) . ']';
	local $ENV{NODE_PATH} = "$folder/node_modules";
	my $pid = open2(my $out, my $in, 'node', "$library/tus_upload.js", $list);
	$children{$pid} = 'client';
	while (IO::Select->new($out)->can_read($PostgreSQL::Test::Utils::timeout_default))
	{
		last if !sysread $out, $text, 65536, length $text;
		while ($text =~ s/^(.*)\n//)
		{
			my ($word, $what, $url) = split / /, $1, 3;

			if ($word eq 'sent' && @places && $what >= $places[0])
			{
				shift @places;
				restart_server($servers[ rand @servers ]);
			}
			push @{ $urls{$what} }, $url if $word eq 'done';
			diag "$what: $url" if $word eq 'failed';
		}
	}
	kill 'KILL', $pid;
	waitpid $pid, 0;
	delete $children{$pid};
	is(@places, 0, "servers were killed $kills times meanwhile");
	return \%urls;
}

my @kinds = (
	[ 'one request', '' ],
	[ 'chunks', '"chunkSize": 400000' ],
	[ 'data with the creation', '"uploadDataDuringCreation": true, "chunkSize": 500000' ],
	[ 'a deferred length', '"uploadLengthDeferred": true, "chunkSize": 300000' ],
	[ 'parallel uploads', '"parallelUploads": 3' ],
	[ 'parallel uploads in chunks', '"parallelUploads": 4, "chunkSize": 300000' ]);
my @uploads;
foreach my $n (0 .. $#kinds)
{
	my $file = make_file("file$n", 2_000_000 + int rand 500_000);
	my $options = join ', ', qq("endpoint": "$endpoint", "metadata": {"filename": "f $n"}), grep { $_ } $kinds[$n][1];
	push @uploads, { file => $file, options => "{$options}" };
}
# not a partial one, whatever its path says
$node->safe_psql('postgres', q{SELECT start_upload('partial/other', 0, upload_id => 'other'); SELECT complete_upload('other')});
my $urls = upload(6, @uploads);
foreach my $n (0 .. $#kinds)
{
	my ($url) = @{ $urls->{ $uploads[$n]{file} } // [''] };

	is($url && digest(stored($url)), digest($uploads[$n]{file}), "$kinds[$n][0]: the file in the storage is what was sent");
}

my @partial = split /\n/, $node->safe_psql('postgres', q{
	SELECT jsonb_array_elements_text(concatenated_from) FROM upload_session WHERE concatenated_from IS NOT NULL});
is($node->safe_psql('postgres', q{SELECT count(*), sum(jsonb_array_length(concatenated_from)) FROM upload_session WHERE concatenated_from IS NOT NULL}),
	'2|7', 'parallel uploads were concatenated');
# A process that was killed may have claimed some; that lasts for minutes.
my $unclaim = q{UPDATE upload_reclaim SET claimed_until = '-infinity' WHERE claimed_until > now()};
$node->safe_psql('postgres', $unclaim);
wait_until('the partial uploads are freed', sub { !grep { -e "$storage/$_" } @partial });
pass('the partial uploads are freed');
my %killed = map { $_ => 1 } glob "$storage/*/*";    # pieces of processes that were killed go when their uploads end
is($node->safe_psql('postgres', q{SELECT status FROM get_upload('other')}), 'complete', '... and no other');

# --- requests

my $http = HTTP::Tiny->new;
my @statuses;

# Send a request.  Returns its answer.
sub request
{
	my ($method, $url, $headers, $content) = @_;
	my %headers = ('Tus-Resumable' => '1.0.0', %$headers);

	$headers{'Content-Type'} //= 'application/offset+octet-stream' if $method eq 'PATCH';
	delete @headers{ grep { !defined $headers{$_} } keys %headers };
	my $answer = $http->request($method, $url =~ /^http:/ ? $url : "http://127.0.0.1:$port$url", { headers => \%headers, content => $content });
	push @statuses, $answer->{status};
	return $answer;
}

sub create_upload
{
	my ($headers) = @_;
	my $answer = request('POST', '/files', $headers);

	die "no upload: $answer->{status} $answer->{content}" if $answer->{status} != 201;
	return $answer->{headers}{location};
}

my $upload = create_upload({ 'Upload-Length' => 1000, 'Upload-Metadata' => 'filename Y2F0,private' });
my $partial = create_upload({ 'Upload-Length' => 1000, 'Upload-Concat' => 'partial' });
my $deferred = create_upload({ 'Upload-Defer-Length' => 1 });
my @unusual = map { create_upload({ 'Upload-Length' => 0, 'Upload-Metadata' => $_ }) }
  'filename 5pelLnR4dA==', 'filename Cg==', 'filetype dGV4dC9wbGFpbjthPSLml6Ui', 'filetype dGV4dC9wbGFpbjthPSIKIg==';
my $expired = create_upload({ 'Upload-Length' => 1000 });
my $id = $expired =~ s{.*/}{}r;
$node->safe_psql('postgres', qq{UPDATE upload_session SET expires_at = '-infinity' WHERE upload_id = '$id'});

foreach (
	[ 'no Tus-Resumable', 412, POST => '/files', { 'Tus-Resumable' => undef, 'Upload-Length' => 1 } ],
	[ 'another version of tus', 412, POST => '/files', { 'Tus-Resumable' => '0.2.2', 'Upload-Length' => 1 } ],
	[ 'no length', 400, POST => '/files', {} ],
	[ 'two lengths', 400, POST => '/files', { 'Upload-Length' => 1, 'Upload-Defer-Length' => 1 } ],
	[ 'a length that is no number', 400, POST => '/files', { 'Upload-Length' => 'long' } ],
	[ 'a negative length', 400, POST => '/files', { 'Upload-Length' => -1 } ],
	[ 'an empty length', 400, POST => '/files', { 'Upload-Length' => '' } ],
	[ 'a length beyond bigint', 413, POST => '/files', { 'Upload-Length' => '100000000000000000000' } ],
	[ 'more than an upload may hold', 413, POST => '/files', { 'Upload-Length' => 20_000_001 } ],
	[ 'a wrong deferral', 400, POST => '/files', { 'Upload-Defer-Length' => 2 } ],
	[ 'metadata that are not base64', 400, POST => '/files', { 'Upload-Length' => 1, 'Upload-Metadata' => 'name ?' } ],
	[ 'metadata with a null character', 400, POST => '/files', { 'Upload-Length' => 1, 'Upload-Metadata' => 'name AAAA' } ],
	[ 'an unknown kind of upload', 400, POST => '/files', { 'Upload-Length' => 1, 'Upload-Concat' => 'half' } ],
	[ 'a final upload of nothing', 400, POST => '/files', { 'Upload-Concat' => 'final;' } ],
	[ 'a final upload with a length', 400, POST => '/files', { 'Upload-Concat' => "final;$partial", 'Upload-Length' => 1 } ],
	[ 'a final upload of what is not partial', 400, POST => '/files', { 'Upload-Concat' => "final;$upload" } ],
	[ 'a final upload of one twice', 400, POST => '/files', { 'Upload-Concat' => "final;$partial $partial" } ],
	[ 'a final upload of one that is not ready', 409, POST => '/files', { 'Upload-Concat' => "final;$partial" } ],
	[ 'a final upload of an unknown one', 404, POST => '/files', { 'Upload-Concat' => 'final;/files/unknown' } ],
	[ 'a final upload of a broken address', 400, POST => '/files', { 'Upload-Concat' => 'final;/files/%E0%A4%A' } ],
	[ 'a final upload of a null character', 400, POST => '/files', { 'Upload-Concat' => 'final;/files/%00' } ],
	[ 'no offset', 403, PATCH => $upload, {}, 'a' ],
	[ 'an offset that is no number', 400, PATCH => $upload, { 'Upload-Offset' => 'x' }, 'a' ],
	[ 'a negative offset', 400, PATCH => $upload, { 'Upload-Offset' => -1 }, 'a' ],
	[ 'another type', 400, PATCH => $upload, { 'Upload-Offset' => 0, 'Content-Type' => 'text/plain' }, 'a' ],
	[ 'a chunk', 204, PATCH => $upload, { 'Upload-Offset' => 0 }, 'a' x 400 ],
	[ 'the same one again', 409, PATCH => $upload, { 'Upload-Offset' => 0 }, 'a' x 400 ],
	[ 'a gap', 409, PATCH => $upload, { 'Upload-Offset' => 500 }, 'a' ],
	[ 'an offset beyond bigint', 409, PATCH => $upload, { 'Upload-Offset' => '100000000000000000000' }, 'a' ],
	[ 'a chunk beyond the end', 413, PATCH => $upload, { 'Upload-Offset' => 400 }, 'a' x 601 ],
	[ 'a second length', 400, PATCH => $upload, { 'Upload-Offset' => 400, 'Upload-Length' => 900 }, 'a' ],
	[ 'the same length', 204, PATCH => $upload, { 'Upload-Offset' => 400, 'Upload-Length' => 1000 }, '' ],
	[ 'an empty chunk', 204, PATCH => $upload, { 'Upload-Offset' => 400 }, '' ],
	[ 'a length that no upload may have', 413, PATCH => $deferred, { 'Upload-Offset' => 0, 'Upload-Length' => 20_000_001 }, 'a' ],
	[ 'an unknown upload', 404, PATCH => '/files/unknown', { 'Upload-Offset' => 0 }, 'a' ],
	[ 'an unknown upload', 404, HEAD => '/files/unknown', {} ],
	[ 'an unknown upload', 404, DELETE => '/files/unknown', {} ],
	[ 'an unknown upload', 404, GET => '/files/unknown', {} ],
	[ 'no upload', 404, PATCH => '/files', { 'Upload-Offset' => 0 }, 'a' ],
	[ 'a broken address', 400, HEAD => '/files/%E0%A4%A', {} ],
	[ 'a null character', 400, HEAD => '/files/%00', {} ],
	[ 'a path upwards', 404, HEAD => '/files/..%2f..%2fetc%2fpasswd', {} ],
	[ 'a long address', 404, HEAD => '/files/' . 'a' x 4000, {} ],
	[ 'an unknown method', 404, PUT => $upload, {}, 'a' ],
	[ 'an unfinished file', 404, GET => $upload, {} ],
	[ 'an upload of another program', 404, GET => '/files/other', {} ],
	(map { [ 'a file whose name or type no header can have', 200, GET => $_, {} ] } @unusual),
	[ 'an expired upload', 410, HEAD => $expired, {} ],
	[ 'an expired upload', 410, PATCH => $expired, { 'Upload-Offset' => 0 }, 'a' ],
	[ 'the rest', 204, PATCH => $upload, { 'Upload-Offset' => 400 }, 'b' x 600 ],
	[ 'the rest again', 409, PATCH => $upload, { 'Upload-Offset' => 400 }, 'b' x 600 ],
	[ 'more than that', 413, PATCH => $upload, { 'Upload-Offset' => 1000 }, 'b' ])
{
	my ($name, $status, @request) = @$_;
	my $answer = request(@request);

	is($answer->{status}, $status, "$request[0], $name: $status") or diag $answer->{content};
}

my $answer = request('OPTIONS', '/files', {});
like($answer->{headers}{'tus-extension'}, qr/creation.*termination.*concatenation/, 'the extensions');
is($answer->{headers}{'tus-max-size'}, '20000000', 'the largest upload');
$answer = request('HEAD', $upload, {});
is_deeply([ @{ $answer->{headers} }{ 'upload-offset', 'upload-length', 'upload-metadata', 'upload-expires' } ],
	[ '1000', '1000', 'private,filename Y2F0', undef ], 'an upload that is complete');
is(request('GET', $upload, {})->{content}, 'a' x 400 . 'b' x 600, 'its file');
$answer = request('GET', $unusual[0], {});
is($answer->{headers}{'content-disposition'}, 'attachment; filename="_.txt"', 'a name with characters that no header can have');
is(request('HEAD', $unusual[0], {})->{headers}{'upload-metadata'}, 'filename 5pelLnR4dA==', '... as the client has sent it');
$answer = request('PATCH', $partial, { 'Upload-Offset' => 0 }, 'c' x 1000);
like($answer->{headers}{'upload-expires'}, qr/GMT$/, 'an upload expires');
is(request('HEAD', $partial, {})->{headers}{'upload-concat'}, 'partial', 'a partial upload');
request('PATCH', $deferred, { 'Upload-Offset' => 0 }, 'd' x 10);
is(request('HEAD', $deferred, {})->{headers}{'upload-defer-length'}, '1', 'an upload whose length is deferred');
request('PATCH', $deferred, { 'Upload-Offset' => 10, 'Upload-Length' => 10 }, '');
is(request('GET', $deferred, {})->{content}, 'd' x 10, '... is complete when its length is declared');
is(request('GET', create_upload({ 'Upload-Length' => 0 }), {})->{content}, '', 'an empty upload is complete at once');

# A final upload, and once more, as of a client that has lost the answer
my @final = map { request('POST', '/files', { 'Upload-Concat' => "final;$partial", 'Upload-Metadata' => 'name Y2F0' }) } 1, 2;
is($final[1]{headers}{location}, $final[0]{headers}{location}, 'a final upload is the same one for the same list');
my $final = $final[0]{headers}{location};
is_deeply([ @{ request('HEAD', $final, {})->{headers} }{ 'upload-concat', 'upload-length', 'upload-metadata' } ],
	[ "final;$partial", '1000', 'name Y2F0' ], 'a final upload');
is(request('PATCH', $final, { 'Upload-Offset' => 1000 }, '')->{status}, 403, '... takes no chunk');

# --- one at a time

# Begin a chunk at one of the servers, and send half of it.
sub begin_chunk
{
	my ($server, $url, $offset, $length, $content) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$server->{port}") or die $!;

	print $socket join "\r\n", "PATCH $url HTTP/1.1", 'Host: localhost', 'Tus-Resumable: 1.0.0', "Upload-Offset: $offset",
	  'Content-Type: application/offset+octet-stream', "Content-Length: $length", '', $content;
	$socket->flush;
	return $socket;
}

# Wait until somebody has the lease of an upload.
sub wait_for_lease
{
	my ($url) = @_;
	my $id = $url =~ s{.*/}{}r;

	wait_until('a lease', sub { $node->safe_psql('postgres', qq{SELECT lease_holder IS NOT NULL FROM upload_session WHERE upload_id = '$id'}) eq 't' });
	return;
}

my @urls = map { "http://127.0.0.1:$_->{port}" } @servers;
$upload = create_upload({ 'Upload-Length' => 100_000 });
my $socket = begin_chunk($servers[0], $upload, 0, 100_000, 'a' x 40_000);
wait_for_lease($upload);
is(request('HEAD', "$urls[1]$upload", {})->{headers}{'upload-offset'}, 40_000, 'a hanging request is stopped, and what it has sent counts');
close $socket;

# A server is stopped for longer than its lease lasts.  What it writes then is fenced.
$upload = create_upload({ 'Upload-Length' => 100_000 });
$socket = begin_chunk($servers[0], $upload, 0, 100_000, 'a' x 40_000);
wait_for_lease($upload);
kill 'STOP', $servers[0]{pid};
wait_until('the lease', sub { request('HEAD', "$urls[1]$upload", {})->{status} == 200 });
is(request('PATCH', "$urls[1]$upload", { 'Upload-Offset' => 0 }, 'b' x 50_000)->{status}, 204, 'another server goes on when a lease has run out');
kill 'CONT', $servers[0]{pid};
print $socket 'a' x 60_000;
like(<$socket>, qr/ 423 /, 'what the first one writes is refused');
is(request('PATCH', $upload, { 'Upload-Offset' => 50_000 }, 'b' x 50_000)->{status}, 204, 'the other one ends the upload');
ok(request('GET', $upload, {})->{content} eq 'b' x 100_000, '... and its bytes are the file');

$upload = create_upload({ 'Upload-Length' => 1000 });
$id = $upload =~ s{.*/}{}r;
$node->safe_psql('postgres', qq{SELECT held FROM acquire_upload_lease('$id', 'somebody', '1 hour')});
is(request('PATCH', $upload, { 'Upload-Offset' => 0 }, 'a')->{status}, 423, 'an upload that somebody does not let go is locked');

# What happens in the middle of a request, when more than a piece is still to come
sub end_connections
{
	$node->safe_psql('postgres', qq{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = 'upload_server'});
	return;
}

sub wait_for_storage
{
	my ($id) = @_;

	wait_until('the storage to be free', sub { !-e "$storage/$id" });
	return;
}

# Whether a server can write: asked without request, which would record that it could not.
sub can_write
{
	return $http->post("$_[0]/files", { headers => { 'Tus-Resumable' => '1.0.0', 'Upload-Length' => 1 } })->{status} == 201;
}

foreach (
	[ 'an abort', 410, q{BEGIN; SELECT abort_upload('ID'); DELETE FROM upload_reclaim; COMMIT} ],
	[ 'an abort that has freed the storage', 410, q{SELECT abort_upload('ID')}, \&wait_for_storage ],
	[ 'a deletion that has freed the storage', 404, q{SELECT delete_upload('ID')}, \&wait_for_storage ],
	[ 'expiry', 410, q{UPDATE upload_session SET expires_at = '-infinity' WHERE upload_id = 'ID'} ],
	[ 'a removal', 404, q{DELETE FROM upload_session WHERE upload_id = 'ID'} ],
	[ 'a smaller size', 413, q{UPDATE upload_session SET total_size = 40 WHERE upload_id = 'ID'} ],
	[ 'another offset', 409, q{UPDATE upload_session SET uploaded_bytes = 30 WHERE upload_id = 'ID'} ],
	[ 'another lease', 423, q{UPDATE upload_session SET lease_epoch = lease_epoch + 1 WHERE upload_id = 'ID'} ],
	[ 'a full disk', 507, undef, sub { append_to_file("$folder/full", '') }, sub { unlink "$folder/full" } ],
	[ 'a read-only database', 503, 'ALTER ROLE upload_server SET default_transaction_read_only = on', \&end_connections,
		sub { $node->safe_psql('postgres', 'ALTER ROLE upload_server RESET default_transaction_read_only'); end_connections() } ])
{
	my ($name, $status, $sql, $begin, $end) = @$_;
	my $url = create_upload({ 'Upload-Length' => 300_000 });
	my $id = $url =~ s{.*/}{}r;
	my $socket = begin_chunk($servers[0], $url, 0, 300_000, 'a' x 50_000);

	wait_until('the request to begin', sub { grep { -s == 50_000 } glob "$storage/$id/0-*" });
	$node->safe_psql('postgres', $sql =~ s/ID/$id/r) if $sql;
	$begin->($id) if $begin;
	print $socket 'b' x 50_000;
	$socket->flush;
	ok(IO::Select->new($socket)->can_read($PostgreSQL::Test::Utils::timeout_default), "$name in the middle of a request");
	like(<$socket>, qr/ $status /, "... is answered with $status");
	wait_until('what was not confirmed to go', sub { !grep { -e } glob "$storage/$id/*" });
	rmtree("$storage/$id") if ($sql // '') =~ /DELETE FROM/;    # nothing else would free it
	$end->() if $end;
	wait_until('the servers to write', sub { 2 == grep { can_write($_) } @urls });
}

# A connection that is lost when a piece was confirmed, and before the server hears of it
my $piece;
$socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$servers[0]{port}") or die $!;
print $socket join "\r\n", 'POST /files HTTP/1.1', 'Host: localhost', 'Tus-Resumable: 1.0.0', 'Upload-Length: 200',
  'Content-Type: application/offset+octet-stream', 'Content-Length: 100', '', 'a' x 50;
$socket->flush;
wait_until('the request to begin', sub { ($piece) = grep { -s == 50 } glob "$storage/*/0-0" });
$node->safe_psql('postgres', 'ALTER ROLE upload_server SET synchronous_commit = on');
end_connections();
print $socket 'a' x 50;
$socket->flush;
my $waiting = q{FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ 'try_advance_upload'};
wait_until('the commit to wait', sub { $node->safe_psql('postgres', "SELECT count(*) $waiting") eq '1' });
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $waiting");
like(<$socket>, qr/ 503 /, 'the answer to a confirmation is lost');
$node->safe_psql('postgres', 'ALTER ROLE upload_server RESET synchronous_commit');
end_connections();
wait_until('the servers to write', sub { 2 == grep { can_write($_) } @urls });
$upload = '/files/' . ($piece =~ m{([^/]*)/0-0$})[0];
is(request('HEAD', $upload, {})->{headers}{'upload-offset'}, 100, '... and the piece counts');
is(request('PATCH', $upload, { 'Upload-Offset' => 100 }, 'b' x 100)->{status}, 204, '... so the client goes on');
is(request('GET', $upload, {})->{content}, 'a' x 100 . 'b' x 100, '... and the file is right');

# A disk that is full when the file is put together
$upload = create_upload({ 'Upload-Length' => 100, 'Upload-Concat' => 'partial' });
$id = $upload =~ s{.*/}{}r;
request('PATCH', $upload, { 'Upload-Offset' => 0 }, 'a' x 100);
append_to_file("$folder/full", '');
is($http->post("$urls[0]/files", { headers => { 'Tus-Resumable' => '1.0.0', 'Upload-Concat' => "final;$upload" } })->{status}, 507,
	'there is no room for a final file');
unlink "$folder/full";
is(scalar(() = glob "$storage/$id/*"), 1, '... and nothing of it is left');

# Two clients send different files to one upload.
my @files = map { make_file("rival$_", 3_000_000) } 1, 2;
$upload = create_upload({ 'Upload-Length' => 3_000_000 });
$urls = upload(0, map { { file => $_, options => qq({"uploadUrl": "http://127.0.0.1:$port$upload", "chunkSize": 300000}) } } @files);
is(keys %$urls, 2, 'two clients have ended one upload');
my @contents = map { slurp_file($_) } @files, stored($upload);
$id = $upload =~ s{.*/}{}r;
my $wrong = 0;
foreach (split /\n/, $node->safe_psql('postgres', qq{SELECT chunk_offset, chunk_length FROM list_parts('$id')}))
{
	my @pieces = map { substr $_, (split /\|/)[0], (split /\|/)[1] } @contents;
	$wrong++ if $pieces[2] ne $pieces[0] && $pieces[2] ne $pieces[1];
}
is($wrong, 0, 'each piece is from one of them');

# --- storage is freed

sub is_freed
{
	my ($url, $name) = @_;
	my $id = $url =~ s{.*/}{}r;

	wait_until($name, sub { !grep { -e } glob "$storage/$id*" });
	pass($name);
	return;
}

# A process is killed when a final file stands, and is not recorded yet.
my @parts = map { create_upload({ 'Upload-Length' => 10, 'Upload-Concat' => 'partial' }) } 1, 2;
request('PATCH', $parts[$_], { 'Upload-Offset' => 0 }, $_ x 10) foreach 0, 1;
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; LOCK TABLE upload_session IN SHARE ROW EXCLUSIVE MODE');
$socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$servers[0]{port}") or die $!;
print $socket join "\r\n", 'POST /files HTTP/1.1', 'Host: localhost', 'Tus-Resumable: 1.0.0', "Upload-Concat: final;@parts", '', '';
$socket->flush;
$waiting = q{FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'concatenate_uploads'};
wait_until('the file to stand', sub { $node->safe_psql('postgres', "SELECT count(*) $waiting") eq '1' });
restart_server($servers[0]);
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 60000) $waiting");
$session->query_safe('ROLLBACK');
$session->quit;
$node->safe_psql('postgres', $unclaim);
is_freed(Digest::SHA::sha256_hex(join ' ', map { s{.*/}{}r } @parts), 'a final file that was not recorded is freed');
$upload = request('POST', '/files', { 'Upload-Concat' => "final;@parts" })->{headers}{location};
is(request('GET', $upload, {})->{content}, '0' x 10 . '1' x 10, '... and made again for a client that has lost the answer');

# Only a file that is marked, that no session has, and that has stood for some time goes.
my ($recorded) = map { m{([^/]*)/file$} } stored($upload);
my ($young, $purged, $other) = map { "$storage/" . $_ x 64 . '.00000000-0000-4000-8000-000000000000' } 'a' .. 'c';
my %marks = ("$storage/$recorded" => 0, $young => time + 1_000_000, $other => 0);
foreach ($young, $purged, $other)
{
	mkdir $_ or die "$_: $!";
	append_to_file("$_/file", 'a');
}
foreach (keys %marks)
{
	my $mark = s{.*/}{$storage/unrecorded/}r;

	mkdir $mark or die "$mark: $!";
	utime $marks{$_}, $marks{$_}, $mark or die "$mark: $!";
}
wait_until('the marks', sub { 1 == grep { -e } glob "$storage/unrecorded/*" });
is_deeply([ map { scalar -e "$_/file" } "$storage/$recorded", $young, $purged, $other ], [ 1, 1, 1, undef ], 'a file that has, or may get, or had, a session stays');
rmtree([ $young, $purged, glob "$storage/unrecorded/*" ]);

$upload = create_upload({ 'Upload-Length' => 1000 });
request('PATCH', $upload, { 'Upload-Offset' => 0 }, 'a' x 500);
is(request('DELETE', $upload, {})->{status}, 204, 'an upload is deleted');
is(request('HEAD', $upload, {})->{status}, 404, '... and gone');
is_freed($upload, '... and its storage is freed');
is(request('DELETE', $final, {})->{status}, 204, 'a complete upload is deleted');
is_freed($final, '... and its storage is freed');
is_freed($partial, 'as is that of the partial upload');
ok(-e "$storage/" . ($expired =~ s{.*/}{}r), 'an expired upload');
$node->safe_psql('postgres', 'SELECT sweep_uploads()');
is_freed($expired, '... is freed when it is swept');
wait_until('the queue', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM upload_reclaim') eq '0' });

# Whatever is in the queue, only a folder of the upload that the row is of goes, and only one that this server makes.
$upload = create_upload({ 'Upload-Length' => 1000 });
$id = $upload =~ s{.*/}{}r;
push @files, map { "$storage/$_" } $id, 'x', '87f9c9f6-3fe4-4b0a-a3b1-b0c3c7d1b0a6';
mkdir $_ or die "$_: $!" foreach @files[ -2, -1 ];
my @foreign = (
	(map { [ $id, qq('$_') ] } 'null', '{}', '{"folder": null}', '{"folder": 7}', '{"folder": ["x"]}', '{"folder": ""}'),
	(map { [ $_, qq('{"folder": "$_"}') ] } '.', '..', '/', '../storage', "$id/..", "../storage/$id", "$id/", 'x', '87f9c9f6-3fe4-4b0a-a3b1-b0c3c7d1b0a6'),
	[ 'x', qq('{"folder": "$id"}') ]);
$node->safe_psql('postgres', join ';', map { qq{INSERT INTO upload_reclaim (reason, upload_id, path, provider_data) VALUES ('aborted', '$_->[0]', 'x', $_->[1])} } @foreign);
wait_until('the queue', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM upload_reclaim WHERE attempts = 0') eq '0' });
is($node->safe_psql('postgres', q{SELECT count(*) FROM upload_reclaim WHERE last_error = 'this storage makes no such folder'}), @foreign,
	'what names no folder of the upload stays in the queue');
is_deeply([ grep { !-e } @files ], [], '... and nothing is removed');
$node->safe_psql('postgres', 'DELETE FROM upload_reclaim');
rmtree([ @files[ -2, -1 ] ]);

$node->safe_psql('postgres', 'SELECT sweep_uploads()');
wait_until('the queue', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM upload_reclaim') eq '0' });
my %live = map { $_ => 1 } 'unrecorded', split /\n/, $node->safe_psql('postgres', q{
	SELECT provider_data->>'folder' FROM upload_session WHERE status IN ('pending', 'in_progress', 'complete')});
is_deeply([ grep { !$live{$_} } map { s{.*/}{}r } glob "$storage/*" ], [], 'of uploads that have ended without the file, nothing is left');
is_deeply([ glob "$storage/unrecorded/*" ], [], '... nor a mark');
my @pieces = split /\n/, $node->safe_psql('postgres', q{
	SELECT session.upload_id || '/' || part.etag FROM upload_session AS session, list_parts(session.upload_id, NULL, 1000) AS part});
my %confirmed = map { $_ => 1 } @pieces;
is_deeply([ grep { !m{/file$} && !$confirmed{$_} } map { s{^\Q$storage/}{}r } grep { !$killed{$_} } glob "$storage/*/*" ], [], '... nor a piece that is not confirmed');

is_deeply([ grep { $_ >= 500 } @statuses ], [], 'no request was a failure of the server');
$node->stop;
is(request('HEAD', $deferred, {})->{status}, 503, 'without the database');
$node->start;
is(request('HEAD', $deferred, {})->{status}, 200, '... and when it is back');

$node->stop;
done_testing();
