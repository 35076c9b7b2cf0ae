/*-------------------------------------------------------------------------
 *
 * redis_client.c
 *		A session store in Redis, for the benchmark: for each chunk, every
 *		client gets a session and sets it again.  Or it takes new sessions,
 *		one after the other, from start to completion.
 *
 *		redis_client SOCKET CLIENTS CALLS_PER_CLIENT SESSIONS VALUE CHUNKS
 *
 * CHUNKS are those of a new session.  With 0, each call is a chunk of a session
 * that is there already.  Prints calls per second.
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
static long calls;
static long sessions;
static const char *value;
static long chunks_per_life;

/* Run a command, and end the program unless it succeeds. */
static void
run(redisContext *redis, const char *command, long session)
{
	redisReply *reply = redisCommand(redis, command, session, value);

	if (reply == NULL || reply->type == REDIS_REPLY_ERROR || reply->type == REDIS_REPLY_NIL)
	{
		fprintf(stderr, "redis_client: %s\n", reply == NULL ? redis->errstr : command);
		exit(1);
	}
	freeReplyObject(reply);
}

/* What it takes to confirm a chunk. */
static void
advance(redisContext *redis, long session)
{
	run(redis, "GET upload:%012ld", session);
	run(redis, "SET upload:%012ld %s EX 172800", session);
}

/* An upload from start to completion. */
static void
live(redisContext *redis, long session)
{
	run(redis, "SET upload:%012ld %s EX 172800", session);
	for (long chunk = 0; chunk < chunks_per_life; chunk++)
		advance(redis, session);
	run(redis, "GET upload:%012ld", session);
	run(redis, "DEL upload:%012ld", session);
}

/*
 * All that one client does; each has its own part of the sessions, and of the
 * new ones.
 */
static void *
upload(void *number)
{
	long		share = sessions / clients;
	long		first = (long) number * share;
	redisContext *redis = redisConnectUnix(socket_path);

	if (redis == NULL || redis->err != 0)
	{
		fprintf(stderr, "redis_client: cannot connect to %s\n", socket_path);
		exit(1);
	}
	for (long call = 0; call < calls; call++)
	{
		if (chunks_per_life == 0)
			advance(redis, first + call * 7919 % share);
		else
			live(redis, sessions + (long) number * calls + call);
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

	if (argc != 7)
	{
		fprintf(stderr, "usage: redis_client SOCKET CLIENTS CALLS_PER_CLIENT SESSIONS VALUE CHUNKS\n");
		return 1;
	}
	socket_path = argv[1];
	clients = atol(argv[2]);
	calls = atol(argv[3]);
	sessions = atol(argv[4]);
	value = argv[5];
	chunks_per_life = atol(argv[6]);

	threads = calloc(clients, sizeof(pthread_t));
	begin = now();
	for (long client = 0; client < clients; client++)
		pthread_create(&threads[client], NULL, upload, (void *) client);
	for (long client = 0; client < clients; client++)
		pthread_join(threads[client], NULL);
	printf("%.1f\n", clients * calls / (now() - begin));
	free(threads);
	return 0;
}
