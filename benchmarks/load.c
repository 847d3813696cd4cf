/* Requests on persistent connections, one at a time on each: for polls and publishes.
 *
 *   load PORT CONNECTIONS REQUEST_FILE spin|sleep       then each line `run N` makes N requests
 *
 * `spin` is for measuring the CPU time of a server on another core: a server that wakes a sleeping client pays for an
 * interrupt to the other core, and the client of a slower server sleeps more often. `sleep` is for sharing the cores
 * with the server.
 * Answers {"requests": N, "seconds": S, "status": 200}. An answer with another status than the first one is an error. */
#include "common.h"

#define ANSWER_BYTES 65536

struct client {
    int fd;
    size_t have;
    char answer[ANSWER_BYTES];
};

static int status;

/* Whether an answer is complete. Checks its status. */
static int whole(struct client *c) {
    c->answer[c->have] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return 0;
    int found = atoi(c->answer + 9);
    if (!status) status = found;
    if (found != status || found >= 400) fail("%.200s", c->answer);
    char *field = strcasestr(c->answer, "\r\nContent-Length:");
    size_t body = field && field < end ? strtoul(field + 17, 0, 10) : 0;
    return c->have >= (size_t)(end + 4 - c->answer) + body;
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "load PORT CONNECTIONS REQUEST_FILE spin|sleep\n"), 2;
    int port = atoi(argv[1]), connections = atoi(argv[2]), poller = epoll_create1(0);
    int wait = strcmp(argv[4], "spin") ? 1000 : 0;
    size_t length;
    char line[256], *request = load(argv[3], &length);
    struct client *clients = calloc(connections, sizeof *clients);
    for (int i = 0; i < connections; i++) {
        clients[i].fd = dial(port, i, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, clients[i].fd, &event);
    }
    while (fgets(line, sizeof line, stdin)) {
        long wanted = 0, begun = 0, done = 0;
        if (sscanf(line, "run %ld", &wanted) != 1) fail("what is %s", line);
        double began = now();
        for (; begun < connections && begun < wanted; begun++) {
            struct pollfd made = {.fd = clients[begun].fd, .events = POLLOUT};
            poll(&made, 1, 10000);
            write_all(clients[begun].fd, request, length);
        }
        while (done < wanted) {
            struct epoll_event events[64];
            double until = now() + DEADLINE;
            int n;
            while (!(n = epoll_wait(poller, events, 64, wait)))
                if (now() > until) fail("no answer in %.0f seconds", DEADLINE);
            if (n < 0) fail("epoll_wait: %s", strerror(errno));
            for (int i = 0; i < n; i++) {
                struct client *c = events[i].data.ptr;
                ssize_t got = read(c->fd, c->answer + c->have, ANSWER_BYTES - 1 - c->have);
                if (got < 0 && errno == EAGAIN) continue;
                if (got <= 0) fail("the server closed after %ld requests: %.200s", done, c->answer);
                c->have += got;
                if (!whole(c)) continue;
                c->have = 0, done++;
                if (begun < wanted) begun++, write_all(c->fd, request, length);
            }
        }
        printf("{\"requests\": %ld, \"seconds\": %.6f, \"status\": %d}\n", done, now() - began, status);
        fflush(stdout);
    }
    return 0;
}
