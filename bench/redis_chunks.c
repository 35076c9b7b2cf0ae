/*-------------------------------------------------------------------------
 *
 * redis_chunks.c
 *		A session store in Redis, for the benchmark: for each chunk, every
 *		client gets a session and sets it again.
 *
 *		redis_chunks SOCKET CLIENTS CHUNKS_PER_CLIENT SESSIONS VALUE
 *
 * Prints chunks per second.
 *
 *-------------------------------------------------------------------------
 */
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *socket_path;
static long clients;
static long chunks;
static long sessions;
static const char *value;

/* Run a command, and end the program unless it succeeds. */
static void
run(redisContext *redis, const char *command, long session)
{
	redisReply *reply = redisCommand(redis, command, session, value);

	if (reply == NULL || reply->type == REDIS_REPLY_ERROR || reply->type == REDIS_REPLY_NIL)
	{
		fprintf(stderr, "redis_chunks: %s\n", reply == NULL ? redis->errstr : command);
		exit(1);
	}
	freeReplyObject(reply);
}

/* The life of one client; each has its own part of the sessions. */
static void *
upload(void *number)
{
	long		share = sessions / clients;
	long		first = (long) number * share;
	redisContext *redis = redisConnectUnix(socket_path);

	if (redis == NULL || redis->err != 0)
	{
		fprintf(stderr, "redis_chunks: cannot connect to %s\n", socket_path);
		exit(1);
	}
	for (long chunk = 0; chunk < chunks; chunk++)
	{
		long		session = first + chunk * 7919 % share;

		run(redis, "GET upload:%012ld", session);
		run(redis, "SET upload:%012ld %s EX 172800", session);
	}
	redisFree(redis);
	return NULL;
}

/* The time in seconds, from some moment on. */
static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* Let all clients upload at once. */
int
main(int argc, char **argv)
{
	pthread_t  *threads;
	double		begin;

	if (argc != 6)
	{
		fprintf(stderr, "usage: redis_chunks SOCKET CLIENTS CHUNKS_PER_CLIENT SESSIONS VALUE\n");
		return 1;
	}
	socket_path = argv[1];
	clients = atol(argv[2]);
	chunks = atol(argv[3]);
	sessions = atol(argv[4]);
	value = argv[5];

	threads = calloc(clients, sizeof(pthread_t));
	begin = now();
	for (long client = 0; client < clients; client++)
		pthread_create(&threads[client], NULL, upload, (void *) client);
	for (long client = 0; client < clients; client++)
		pthread_join(threads[client], NULL);
	printf("%.1f\n", clients * chunks / (now() - begin));
	free(threads);
	return 0;
}
