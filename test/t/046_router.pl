use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;
use ThroughTest;
use UploadTest;

my ($router, @shards) = start_shards();
create_router($router, @shards);
	prepare_through($router, @shards);
foreach (split / /, slurp_file("/tmp/router_list")) {
    my $t = time;
	run_through($router, $_, passed => 1);
    diag "$_ ", time - $t;
}
done_testing();
