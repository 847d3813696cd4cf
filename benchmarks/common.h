/* Shared by the three programs: a clock, files, sockets, and errors.
 * A program reads commands from standard input, a line each, and answers each with a line of JSON. Every wait ends after
 * DEADLINE seconds with an error and an exit, so that no benchmark can hang. */
#ifndef ONCECAST_COMMON_H
#define ONCECAST_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE 120.0
#define SOURCE_PORTS 10000 /* per source address; the kernel's range has about 28,000 */

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    for (char *c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '\'';
    printf("{\"error\": \"%s\"}\n", text);
    fflush(stdout);
    exit(1);
}

/* Returns a file's content, with a NUL after it. */
static inline char *load(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("%s: %s", path, strerror(errno));
    char *data = malloc(1 << 20);
    *length = fread(data, 1, (1 << 20) - 1, file);
    data[*length] = 0;
    fclose(file);
    return data;
}

/* Returns a socket that is connecting to 127.0.0.1:port. `number` chooses the source address. */
static inline int dial(int port, int number, int receive_bytes) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) fail("socket: %s (raise the limit of open files: ulimit -n)", strerror(errno));
    if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = {.sin_family = AF_INET};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number / SOURCE_PORTS);
    if (bind(fd, (void *)&from, sizeof from)) fail("bind: %s", strerror(errno));
    if (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS) fail("connect: %s", strerror(errno));
    return fd;
}

/* Writes all bytes, and waits while the socket is full. */
static inline void write_all(int fd, const char *data, size_t length) {
    double until = now() + DEADLINE;
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) fail("send: %s", strerror(errno));
        if (n < 0) {
            struct pollfd full = {.fd = fd, .events = POLLOUT};
            poll(&full, 1, 1000);
            if (now() > until) fail("nobody reads what is sent");
            continue;
        }
        data += n, length -= n;
    }
}

#endif
