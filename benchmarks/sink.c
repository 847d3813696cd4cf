/* Cheap subscribers, and the publisher that waits for their deliveries, in one process.
 *
 *   sink PORT websocket|frames|sse     sink-tls, which is built with -DWITH_TLS, does the same over TLS
 *
 * `websocket` reads the frames of oncecast.v1, `sse` reads events. In both a message has MARK and eight digits, its
 * number. `frames` counts data frames without reading them, as they may be compressed. Each command has a JSON answer:
 *
 *   subscribe N FILE CHANNELS BUFFER STALLED  connect N more. FILE is the request; @@@@@ in it is replaced by the number
 *                                      of the channel, which goes round; a second @@@@@ by that number plus CHANNELS.
 *                                      BUFFER is SO_RCVBUF (0: the kernel's). STALLED 1: read nothing until `resume`
 *   say FILE                           send the bytes of FILE on every subscriber
 *   publisher FILE PAYLOAD             connect the publisher. PAYLOAD is the text frame of a message; @@@@@ and ########
 *                                      in it are the numbers of the channel and the message. `-`: one byte per round
 *   rounds R BATCH CHANNELS MICROS     R times: publish BATCH messages in one write, and wait for all deliveries.
 *                                      MICROS is the least time between two starts; a line of input ends it early. With
 *                                      0 the wait spins: a server that wakes a sleeping process pays for an interrupt
 *   arrivals R                         R times: publish a message, sleep until all deliveries are done, then read them
 *                                      with the kernel's time stamps, so that the load adds nothing to the times.
 *                                      Not over TLS
 *   await SECONDS                      read until all have the newest message, for at most SECONDS
 *   resume                             start to read on the stalled sockets
 *   check                              what the subscribers have so far
 */
#include "common.h"
#include "tls.h"

#define MARK '^'
#define DIGITS 8
#define IN_FLIGHT 64 /* connections being made at a time, except by `storm` */

enum mode { WEBSOCKET, FRAMES, SSE };
enum stage { CONNECTING, SHAKING, HEAD, STREAM, CLOSED };

struct peer {
    int fd;
    enum stage stage;
    uint64_t left, offset;     /* of the payload of the frame that is being read */
    uint8_t head[14], have;    /* its header */
    uint8_t opcode, kind;      /* the first letter of its "type" */
    uint8_t ends, digits;      /* how much of CRLFCRLF, and of a number, has been read */
    uint8_t stalled, excused;  /* a gap has come since the last message */
    long number, last;         /* the number being read; the last one read */
    long messages, gaps, holes;
    int channel;
};

static enum mode mode;
static int port, poller, count, channels = 1, names = 1, streaming, closed, publisher_plain;
static struct peer *peers, publisher = {.fd = -1};
static long deliveries, acknowledged, bytes, reads, published, next_number;
static char *payload, buffer[1 << 18], first_answer[1024];
static size_t payload_length;
static double last_arrival;

static void say(const char *text) { printf("%s\n", text), fflush(stdout); }

/* Replaces each `what` by a number: the first by `value`, the next by `step` more. Returns how many it replaced. */
static int replace(char *text, size_t length, const char *what, long value, long step) {
    char digits[32], *place;
    int found = 0;
    for (; (place = memmem(text, length, what, strlen(what))); value += step, found++) {
        snprintf(digits, sizeof digits, "%0*ld", (int)strlen(what), value);
        memcpy(place, digits, strlen(what));
    }
    return found;
}

/* A message is complete. */
static void message(struct peer *p) {
    p->messages++, deliveries++;
    if (mode == FRAMES) return;
    if (channels == 1 && p->number != p->last + 1 && !(p->number > p->last && p->excused)) p->holes++;
    p->last = p->number, p->excused = 0;
}

/* Finds marks and their numbers in bytes that may be cut anywhere. */
static void scan(struct peer *p, const char *data, size_t length) {
    const char *end = data + length;
    while (data < end) {
        if (!p->digits) {
            data = memchr(data, MARK, end - data);
            if (!data) return;
            data++, p->digits = DIGITS, p->number = 0;
        }
        while (p->digits && data < end) p->number = p->number * 10 + (*data++ - '0'), p->digits--;
        if (!p->digits) message(p);
    }
}

static void frame_ended(struct peer *p) {
    static const char pong[6] = {(char)0x8a, (char)0x80};
    if (p->opcode == 9) put(p->fd, pong, sizeof pong);
    if (p->opcode != 1 && p->opcode != 2) return;
    if (mode == FRAMES && p != &publisher) {
        message(p);
        return; /* the payload may be compressed */
    }
    if (p->kind == 'p' && p == &publisher) acknowledged++;
    if (p->kind == 'g') p->gaps++, p->excused = 1;
    if (p->kind == 'e' && p == &publisher) fail("the server answered a publish with an error");
}

/* RFC 6455 §5.2: a server's frames, unmasked and unfragmented. */
static void frames(struct peer *p, const char *data, size_t length) {
    while (length) {
        if (p->left) {
            size_t take = length < p->left ? length : p->left;
            if (p->opcode == 1 || p->opcode == 2) {
                if (p->offset <= 9 && 9 < p->offset + take) p->kind = data[9 - p->offset]; /* {"type":"? */
                if (mode == WEBSOCKET && p != &publisher) scan(p, data, take);
            }
            data += take, length -= take, p->offset += take, p->left -= take;
            if (!p->left) frame_ended(p);
            continue;
        }
        p->head[p->have++] = *data++, length--;
        if (p->have < 2) continue;
        int size = p->head[1] & 127, extra = size == 127 ? 8 : size == 126 ? 2 : 0;
        if (p->have < 2 + extra) continue;
        p->left = extra ? 0 : size;
        for (int i = 0; i < extra; i++) p->left = p->left << 8 | p->head[2 + i];
        p->opcode = p->head[0] & 15, p->have = 0, p->offset = 0, p->kind = 0;
        if (!p->left) frame_ended(p);
    }
}

/* Reads the answer's head, up to the empty line. The rest belongs to the stream. */
static void answer(struct peer *p, const char *data, size_t length) {
    static const char end[] = "\r\n\r\n";
    if (!first_answer[0]) memcpy(first_answer, data, length < 1000 ? length : 1000);
    if (!p->ends && length > 12 && memcmp(data + 9, "101", 3) && memcmp(data + 9, "200", 3))
        fail("refused: %.*s", (int)(length < 300 ? length : 300), data);
    while (length && p->ends < 4) p->ends = *data == end[p->ends] ? p->ends + 1 : *data == '\r', data++, length--;
    if (p->ends < 4) return;
    p->stage = STREAM, streaming++;
    if (mode == SSE && p != &publisher) scan(p, data, length);
    else frames(p, data, length);
}

/* Takes the `n` bytes of the buffer, or the error of the read. */
static void taken(struct peer *p, ssize_t n) {
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (p->stage != STREAM || p == &publisher) fail("the server closed connection %ld", (long)(p - peers));
        epoll_ctl(poller, EPOLL_CTL_DEL, p->fd, 0);
        shut(p->fd), p->stage = CLOSED, closed++;
        return;
    }
    if (p != &publisher) bytes += n, reads++, last_arrival = now();
    if (p->stage == HEAD) answer(p, buffer, n);
    else if (mode == SSE && p != &publisher) scan(p, buffer, n);
    else frames(p, buffer, n);
}

static void arrived(struct peer *p) { taken(p, get(p->fd, buffer, sizeof buffer)); }

static void watch(struct peer *p, int how, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = p};
    epoll_ctl(poller, how, p->fd, &event);
}

static char *requests;
static size_t request_length;

/* Waits up to `seconds` for events and handles them. False if there were none. */
static int turn(double seconds) {
    static struct epoll_event events[1024];
    int n = epoll_wait(poller, events, 1024, seconds <= 0 ? 0 : (int)(seconds * 1000) + 1);
    for (int i = 0; i < n; i++) {
        struct peer *p = events[i].data.ptr;
        if (p->stage == CONNECTING) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) fail("connection %ld: %s", (long)(p - peers), strerror(error));
            p->stage = SHAKING;
            watch(p, EPOLL_CTL_MOD, EPOLLIN);
        }
        if (p->stage == SHAKING) {
            if (!shaken(p->fd)) continue;
            int named = replace(memcpy(buffer, requests, request_length), request_length, "@@@@@", p->channel, channels);
            if (p != &publisher && named) names = named;
            put(p->fd, buffer, request_length);
            p->stage = HEAD;
        } else if (p->stage != CLOSED) {
            int was = p->stage;
            arrived(p);
            if (was == HEAD && p->stage == STREAM && p->stalled) epoll_ctl(poller, EPOLL_CTL_DEL, p->fd, 0);
        }
    }
    return n > 0;
}

static void begin(struct peer *p, int number, int receive_bytes) {
    p->fd = dial(port, number, receive_bytes), p->stage = CONNECTING, p->last = next_number - 1;
    watch(p, EPOLL_CTL_ADD, EPOLLOUT);
}

static void subscribe(int n, int spread, int receive_bytes, int stalled, int at_once, long behind) {
    double began = now(), until = began + DEADLINE;
    int first = count, goal = streaming + n, begun = 0;
    channels = spread;
    memset(peers + count, 0, n * sizeof *peers);
    for (count += n; streaming < goal;) {
        while (begun < n && (at_once || begun - (streaming - goal + n) < IN_FLIGHT)) {
            struct peer *p = &peers[first + begun];
            p->stalled = stalled, p->channel = (first + begun) % channels;
            begin(p, first + begun, receive_bytes), begun++;
            p->last -= behind;
            if (at_once && begun % IN_FLIGHT == 0) turn(0);
        }
        turn(1);
        if (now() > until) fail("%d of %d were subscribed in %.0f seconds", streaming - (goal - n), n, DEADLINE);
    }
    printf("{\"subscribed\": %d, \"seconds\": %.6f, \"deflate\": %s}\n", n, now() - began,
           strcasestr(first_answer, "permessage-deflate") ? "true" : "false");
    fflush(stdout);
}

static void connect_publisher(void) {
    double until = now() + DEADLINE;
    int before = streaming;
    begin(&publisher, 30 * SOURCE_PORTS, 0); /* a source address of its own */
    while (streaming == before && now() < until) turn(1);
    if (streaming-- == before) fail("the server did not accept the publisher");
    say("{\"publisher\": true}");
}

/* One frame that publishes message `number`, masked (RFC 6455 §5.3), to `out`; returns its length. */
static size_t publish_frame(char *out, long number, long channel) {
    static const char key[4] = {0x37, 0x1a, 0x52, 0x6d};
    size_t head = payload_length < 126 ? 2 : 4;
    out[0] = (char)0x81;
    if (head == 2) out[1] = (char)(0x80 | payload_length);
    else out[1] = (char)(0x80 | 126), out[2] = (char)(payload_length >> 8), out[3] = (char)payload_length;
    memcpy(out + head, key, 4);
    char *body = memcpy(out + head + 4, payload, payload_length);
    replace(body, payload_length, "########", number, 0);
    replace(body, payload_length, "@@@@@", channel, 0);
    for (size_t i = 0; i < payload_length; i++) body[i] ^= key[i & 3];
    return head + 4 + payload_length;
}

static int interrupted(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static int listeners(void) {
    int n = 0;
    for (int i = 0; i < count; i++) n += peers[i].stage == STREAM && !peers[i].stalled;
    return n;
}

static void say_rounds(long done, long delivered, long read_bytes, long read_times, double seconds, const double *took) {
    printf("{\"rounds\": %ld, \"deliveries\": %ld, \"bytes\": %ld, \"reads\": %ld, \"seconds\": %.6f, \"micros\": [",
           done, delivered, read_bytes, read_times, seconds);
    for (long i = 0; i < done; i++) printf("%s%.1f", i ? ", " : "", took[i] * 1e6);
    say("]}");
}

static void rounds(long wanted, int batch, int micros) {
    char *out = malloc((size_t)batch * (payload_length + 16) + 1);
    double *took = malloc(wanted * sizeof *took), start = now(), due = start;
    long done = 0, before_bytes = bytes, before_reads = reads, each = (long)batch * listeners() * names / channels;
    long before = deliveries, acks = acknowledged;
    for (; done < wanted; done++) {
        while (micros && now() < due) turn(due - now() > 0.0015 ? due - now() - 0.001 : 0);
        if (micros && interrupted()) break;
        size_t length = 0;
        for (int i = 0; i < batch && !publisher_plain; i++, published++)
            length += publish_frame(out + length, next_number++, published % channels);
        if (publisher_plain) out[0] = '.', length = 1;
        double sent = micros ? due : now(), until = now() + DEADLINE; /* latency counts from when the round was due */
        put(publisher.fd, out, length);
        last_arrival = sent;
        before += each, acks += publisher_plain ? 0 : batch;
        while (deliveries < before || acknowledged < acks) {
            turn(micros ? 1 : 0);
            if (now() > until)
                fail("round %ld: %ld of %ld deliveries, %ld of %ld acknowledgements in %.0f seconds", done,
                     deliveries - before + each, each, acknowledged - acks + batch, (long)batch, DEADLINE);
        }
        took[done] = last_arrival - sent, due += micros * 1e-6;
    }
    say_rounds(done, each * done, bytes - before_bytes, reads - before_reads, now() - start, took);
    free(out), free(took);
}

static double seconds_of(const struct timespec *t) { return t->tv_sec + t->tv_nsec * 1e-9; }

/* Waits for bytes, reads them, and returns the kernel's time stamp of the last (SO_TIMESTAMPNS). */
static double came(struct peer *p) {
    char control[256];
    struct pollfd readable = {.fd = p->fd, .events = POLLIN};
    struct iovec part = {.iov_base = buffer, .iov_len = sizeof buffer};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (poll(&readable, 1, (int)(DEADLINE * 1000)) != 1) fail("no delivery in %.0f seconds", DEADLINE);
    taken(p, recvmsg(p->fd, &header, 0));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) return seconds_of((void *)CMSG_DATA(c));
    fail("the kernel does not say when it came");
}

static void stamps(int on) {
    for (int i = 0; i < count; i++)
        if (peers[i].stage == STREAM) {
            if (setsockopt(peers[i].fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on))
                fail("SO_TIMESTAMPNS: %s", strerror(errno));
            watch(&peers[i], on ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, EPOLLIN);
        }
}

static void arrivals(long wanted) {
    char *out = malloc(payload_length + 16);
    double *took = malloc(wanted * sizeof *took), start = now(), sleep = 0.1;
    long before_bytes = bytes, before_reads = reads;
    int all = listeners();
    while (turn(0)) continue;
    stamps(1);
    for (long done = 0; done < wanted; done++) {
        struct timespec wall, pause = {.tv_nsec = (long)(sleep * 1e9)};
        size_t length = publish_frame(out, next_number++, 0);
        long acks = acknowledged;
        double last = 0;
        clock_gettime(CLOCK_REALTIME, &wall);
        write_all(publisher.fd, out, length);
        nanosleep(&pause, 0);
        for (int i = 0; i < count; i++)
            if (peers[i].stage == STREAM) {
                double at = came(&peers[i]);
                if (at > last) last = at;
            }
        while (acknowledged == acks) turn(1);
        took[done] = last - seconds_of(&wall);
        sleep = took[done] > 0.25 ? 0.5 : took[done] < 0.01 ? 0.02 : 2 * took[done];
    }
    stamps(0);
    say_rounds(wanted, all * wanted, bytes - before_bytes, reads - before_reads, now() - start, took);
    free(out), free(took);
}

/* Enlarges the buffer too: the backlog would take a minute through a window of a few segments. */
static void resume(struct peer *p) {
    int bytes = 1 << 18;
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    p->stalled = 0;
    watch(p, EPOLL_CTL_ADD, EPOLLIN);
}

static int behind(void) {
    int n = 0;
    for (int i = 0; i < count; i++) n += peers[i].stage != STREAM || peers[i].last != next_number - 1;
    return n;
}

static void check(double seconds) {
    long gaps = 0, holes = 0, with_gaps = 0;
    for (int i = 0; i < count; i++)
        gaps += peers[i].gaps, with_gaps += peers[i].gaps > 0, holes += peers[i].holes;
    printf("{\"seconds\": %.6f, \"peers\": %d, \"behind\": %d, \"gaps\": %ld, \"with_gaps\": %ld, \"holes\": %ld, "
           "\"closed\": %d, \"deliveries\": %ld, \"bytes\": %ld}\n",
           seconds, count, behind(), gaps, with_gaps, holes, closed, deliveries, bytes);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static char line[16384], file[4096], other[4096];
    if (argc != 3) return fprintf(stderr, "sink PORT websocket|frames|sse\n"), 2;
    port = atoi(argv[1]), mode = argv[2][0] == 'w' ? WEBSOCKET : argv[2][0] == 'f' ? FRAMES : SSE;
    poller = epoll_create1(0), peers = calloc(1 << 16, sizeof *peers), payload = calloc(1, 1);
    setvbuf(stdin, 0, _IONBF, 0); /* unbuffered, so that poll() sees each line */
    for (;;) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        struct pollfd either[2] = {input, {.fd = poller, .events = POLLIN}};
        poll(either, 2, -1); /* pings are answered between commands too */
        if (either[1].revents) turn(0);
        if (!either[0].revents) continue;
        if (!fgets(line, sizeof line, stdin)) return 0;
        long n, number;
        int batch, spread, micros, receive_bytes, stalled;
        double began = now(), seconds;
        if (sscanf(line, "subscribe %ld %4095s %d %d %d", &n, file, &spread, &receive_bytes, &stalled) == 5) {
            if (count + n > 1 << 16) fail("at most %d subscribers", 1 << 16);
            requests = load(file, &request_length);
            subscribe(n, spread, receive_bytes, stalled, 0, 0);
        } else if (sscanf(line, "storm %ld %4095s %ld", &n, file, &number) == 3) {
            requests = load(file, &request_length), next_number = number;
            subscribe(n, 1, 0, 0, 1, number);
        } else if (sscanf(line, "say %4095s", file) == 1) {
            size_t length;
            char *said = load(file, &length);
            for (int i = 0; i < count; i++) put(peers[i].fd, said, length);
            say("{\"said\": true}");
        } else if (sscanf(line, "publisher %4095s %4095s", file, other) == 2) {
            requests = load(file, &request_length), publisher_plain = !strcmp(other, "-");
            if (!publisher_plain) payload = load(other, &payload_length);
            connect_publisher();
        } else if (sscanf(line, "rounds %ld %d %d %d", &n, &batch, &spread, &micros) == 4) {
            channels = spread;
            rounds(n, batch, micros);
        } else if (sscanf(line, "arrivals %ld", &n) == 1) {
            arrivals(n);
        } else if (sscanf(line, "await %lf", &seconds) == 1) {
            while (behind() && now() < began + seconds) turn(0.1);
            check(last_arrival - began);
        } else if (!strncmp(line, "resume", 6)) {
            for (int i = 0; i < count; i++)
                if (peers[i].stalled) resume(&peers[i]);
            check(0);
        } else if (!strncmp(line, "check", 5))
            check(0);
        else if (strncmp(line, "stop", 4))
            fail("unknown command: %s", line);
    }
}
