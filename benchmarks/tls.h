/* TLS of the subscribers, in a program that is built with -DWITH_TLS; without it these are read() and send().
 * A certificate is not verified: the benchmark has made it itself. */
#ifndef ONCECAST_TLS_H
#define ONCECAST_TLS_H

#include "common.h"

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

#define DESCRIPTORS (1 << 17)

static SSL_CTX *tls;
static SSL *secured[DESCRIPTORS]; /* by descriptor */

__attribute__((noreturn)) static void fail_tls(const char *what) {
    char text[256];
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    fail("%s: %s", what, text);
}

/* Goes on with the handshake. True once it is done. */
static int shaken(int fd) {
    if (!tls) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    }
    if (fd >= DESCRIPTORS) fail("at most %d descriptors", DESCRIPTORS);
    if (!secured[fd]) {
        secured[fd] = SSL_new(tls);
        SSL_set_fd(secured[fd], fd);
        SSL_set_connect_state(secured[fd]);
    }
    int done = SSL_do_handshake(secured[fd]);
    if (done == 1) return 1;
    if (SSL_get_error(secured[fd], done) != SSL_ERROR_WANT_READ) fail_tls("the handshake failed");
    return 0;
}

/* As read(2). */
static ssize_t get(int fd, void *to, size_t length) {
    int n = SSL_read(secured[fd], to, (int)length);
    if (n > 0) return n;
    int why = SSL_get_error(secured[fd], n);
    ERR_clear_error();
    if (why != SSL_ERROR_WANT_READ) return 0;
    errno = EAGAIN;
    return -1;
}

/* Writes all bytes, and waits while the socket is full. */
static void put(int fd, const char *data, size_t length) {
    double until = now() + DEADLINE;
    while (length) {
        int n = SSL_write(secured[fd], data, (int)length);
        if (n > 0) {
            data += n, length -= n;
            continue;
        }
        if (SSL_get_error(secured[fd], n) != SSL_ERROR_WANT_WRITE) fail_tls("the server does not take what is sent");
        struct pollfd full = {.fd = fd, .events = POLLOUT};
        poll(&full, 1, 1000);
        if (now() > until) fail("nobody reads what is sent");
    }
}

static void shut(int fd) { SSL_free(secured[fd]), secured[fd] = 0, close(fd); }
#else
static int shaken(int fd) { return fd >= 0; }
static ssize_t get(int fd, void *to, size_t length) { return read(fd, to, length); }
static void put(int fd, const char *data, size_t length) { write_all(fd, data, length); }
static void shut(int fd) { close(fd); }
#endif
#endif
