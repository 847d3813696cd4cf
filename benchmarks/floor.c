/* The floor of every fan-out: a bare loop over send(), to as many subscribers and with as many bytes as a server.
 *
 *   floor SUBSCRIBERS       prints {"port": P}, accepts SUBSCRIBERS subscribers, then one publisher
 *
 * The first bytes of a subscriber are answered with the file of `greeting`. Each byte of the publisher starts a round:
 * one send() to each subscriber. Commands: `greeting FILE`, `block FILE` (the bytes of a send), and `cpu`, which answers
 * {"sends": N, "loop_ns": CPU time of the loops alone}. */
#include "common.h"

static int *subscribers, count, listener;
static char *greeting, *block;
static size_t greeting_length, block_length;
static long sends, loop_ns;

static long cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void everybody(void) {
    long began = cpu();
    for (int i = 0; i < count; i++)
        while (send(subscribers[i], block, block_length, MSG_NOSIGNAL) < 0) {
            if (errno != EAGAIN) fail("send: %s", strerror(errno));
            struct pollfd full = {.fd = subscribers[i], .events = POLLOUT};
            poll(&full, 1, 1000);
        }
    sends += count;
    loop_ns += cpu() - began;
}

static void command(void) {
    static char line[4096], path[4096];
    if (!fgets(line, sizeof line, stdin)) exit(0);
    if (sscanf(line, "greeting %4095s", path) == 1)
        greeting = load(path, &greeting_length);
    else if (sscanf(line, "block %4095s", path) == 1)
        block = load(path, &block_length);
    printf("{\"sends\": %ld, \"loop_ns\": %ld}\n", sends, loop_ns);
    fflush(stdout);
}

/* Accepts one connection, and answers its first bytes. Returns -1 if a command comes first. */
static int welcome(void) {
    struct pollfd either[2] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    poll(either, 2, -1);
    if (either[0].revents) return command(), -1;
    int one = 1, fd = accept(listener, 0, 0);
    static char said[65536];
    if (fd < 0) fail("accept: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (read(fd, said, sizeof said) <= 0) fail("a subscriber left");
    write_all(fd, greeting, greeting_length);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "floor SUBSCRIBERS\n"), 2;
    count = atoi(argv[1]);
    subscribers = malloc((count + 1) * sizeof *subscribers);
    setvbuf(stdin, 0, _IONBF, 0); /* unbuffered, so that poll() sees each line */
    listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&address, length) || listen(listener, 4096)) fail("listen: %s", strerror(errno));
    getsockname(listener, (void *)&address, &length);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i <= count; i++)
        while ((subscribers[i] = welcome()) < 0)
            ;
    int publisher = subscribers[count];
    for (;;) {
        struct pollfd either[2] = {{.fd = 0, .events = POLLIN}, {.fd = publisher, .events = POLLIN}};
        poll(either, 2, -1);
        if (either[0].revents) command();
        if (either[1].revents) {
            char rounds[64];
            ssize_t n = read(publisher, rounds, sizeof rounds);
            if (n <= 0) return 0;
            while (n--) everybody();
        }
    }
}
