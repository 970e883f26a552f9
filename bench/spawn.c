/* How fast this machine starts and reaps processes at best: `spawn TOTAL` starts /bin/true TOTAL times from two
 * parents, each with eight children in flight, by vfork, and prints spawns per second. Exit status 1: a child
 * could not be started or did not exit 0, and no number is printed. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PARENTS = 2, IN_FLIGHT = 8 };

static int start(void)
{
    static char *const argv[] = {"/bin/true", NULL};
    static char *const envp[] = {NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve(argv[0], argv, envp);
        _exit(127);
    }
    return pid > 0;
}

/* One parent: `count` children, never more than IN_FLIGHT at a time. Returns 0 if all of them exited 0. */
static int parent(long count)
{
    long started = 0, ended = 0;
    while (ended < count) {
        int status;
        if (started < count && started - ended < IN_FLIGHT) {
            if (!start())
                return 1;
            started++;
        } else {
            if (wait(&status) < 0 || status != 0)
                return 1;
            ended++;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    long total = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
    struct timespec begin, end;
    int failed = 0;

    if (total < PARENTS) {
        fprintf(stderr, "usage: spawn TOTAL (at least %d)\n", PARENTS);
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < PARENTS; i++) {
        long share = total / PARENTS + (i < total % PARENTS);
        pid_t pid = fork();
        if (pid == 0)
            _exit(parent(share));
        if (pid < 0) {
            perror("fork");
            return 1;
        }
    }
    for (int i = 0; i < PARENTS; i++) {
        int status;
        if (wait(&status) < 0 || status != 0)
            failed = 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (failed) {
        fprintf(stderr, "spawn: /bin/true could not be started, or failed\n");
        return 1;
    }
    printf("%.1f\n", (double)total / ((double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
    return 0;
}
