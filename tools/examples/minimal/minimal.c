/* The smallest correct client: section 17 of protocol-spec.md. mg_poll gives what has happened to
 * `event`, counts it as taken when it is called again, connects, waits and resumes; 0 is final. */
#include <netdb.h>
#include <poll.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "wire.h"

enum { FRAME = 65536, PLACES = 64, HELLO = 8, REQUEST, PING = 11, PONG };
enum { WELCOME = 8, RESPONSE, PUSH, GAP, PINGED, GO_AWAY = 14, ERROR = 16 };
typedef struct {
    const char *host, *port; void (*event)(const char *what, const uint8_t *payload, size_t len);
    text identity, token;
    struct { uint64_t up_seq; text body; } open[PLACES];
    size_t opens, in_flight, in_len, used, frame_max;
    uint64_t attempt, up_seq, sent, received, taken, acked;
    int fd, breaches, failures, is_final;
    double not_before, heard, pinged, interval;
    jmp_buf out; uint8_t in[FRAME + 4];
} mg_client;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void forget(mg_client *c, uint64_t admitted) {
    for (size_t i = 0; i < c->opens; i++) {
        field p = parse((field){0, c->open[i].body.at, c->open[i].body.len}).f[15];
        int may = c->open[i].up_seq <= c->sent && c->open[i].up_seq <= admitted;
        c->event(may ? "unknown" : "not executed", p.at, p.len);
    }
    if (c->up_seq || c->received) c->event("resync", NULL, 0);
    c->opens = c->token.len = 0, c->breaches = 0, c->in_flight = 0;
    c->attempt = c->up_seq = c->sent = c->received = c->taken = c->acked = 0;
}

static void lose(mg_client *c, int breach) {
    if ((c->breaches += breach) > 1) forget(c, UINT64_MAX);
    longjmp(c->out, 1);
}

static void write_frame(mg_client *c, int member, const text *body, uint64_t up_seq) {
    text t = {4, {0}};
    number(&t, 1, up_seq);
    if (member != HELLO) number(&t, 2, c->acked = c->taken);
    if (member) bytes(&t, member, body->at, body->len);
    t.at[2] = (uint8_t)((t.len - 4) >> 8), t.at[3] = (uint8_t)(t.len - 4);
    (void)!send(c->fd, t.at, t.len, MSG_NOSIGNAL); /* of a failure the reader finds the end */
}

static int read_frame(mg_client *c, double wait, message *m) {
    for (memmove(c->in, c->in + c->used, c->in_len -= c->used), c->used = 0;;) {
        size_t n = 0;
        for (int i = 0; i < 4; i++) n = n << 8 | c->in[i];
        if (c->in_len >= 4 && n > c->frame_max) lose(c, 1);
        if (c->in_len >= 4 && c->in_len >= n + 4) {
            *m = parse((field){0, c->in + 4, n}), c->used = n + 4, c->heard = now();
            return 1;
        }
        if (poll(&(struct pollfd){c->fd, POLLIN, 0}, 1, (int)(wait * 1000)) <= 0) return 0;
        ssize_t got = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, 0);
        if (got <= 0) lose(c, 0);
        c->in_len += (size_t)got;
    }
}

static void error(mg_client *c, field body, int is_open) {
    message e = parse(body), again = parse(e.f[4]);
    c->not_before = now() + (double)again.f[2].number / 1000;
    if (!again.f[1].number) c->is_final = 1, lose(c, 0);
    if (is_open && !again.f[4].number) forget(c, e.f[5].number);
    if (!is_open && (e.f[2].number == 46 || e.f[2].number == 47)) forget(c, UINT64_MAX);
    lose(c, 0);
}

static void open_connection(mg_client *c) {
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM};
    if (c->not_before > now()) poll(NULL, 0, (int)((c->not_before - now()) * 1000));
    if (getaddrinfo(c->host, c->port, &hints, &found)) lose(c, 0);
    c->fd = socket(found->ai_family, SOCK_STREAM, 0), c->in_len = c->used = 0, c->frame_max = 4096;
    int refused = connect(c->fd, found->ai_addr, found->ai_addrlen);
    if (freeaddrinfo(found), refused) lose(c, 0);
    text hello = c->identity, resume = {0};
    bytes(&resume, 1, c->token.at, c->token.len);
    number(&resume, 2, ++c->attempt), number(&resume, 3, c->taken);
    if (c->token.len) bytes(&hello, 12, resume.at, resume.len);
    write_frame(c, HELLO, &hello, 0);
    message m = {0};
    if (read_frame(c, 5, &m) && m.f[ERROR].at) error(c, m.f[ERROR], 0);
    if (!m.f[WELCOME].at) lose(c, 0);
    message w = parse(m.f[WELCOME]), limits = parse(w.f[5]);
    if (w.f[3].number != 1) forget(c, UINT64_MAX);
    c->interval = (double)w.f[4].number / 1000, c->pinged = now(), c->sent = w.f[9].number;
    c->in_flight = limits.f[2].number, c->frame_max = limits.f[1].number;
    if (c->in_flight > PLACES) c->in_flight = PLACES;
    c->token.len = w.f[7].number && w.f[6].len <= 512 ? w.f[6].len : 0;
    memcpy(c->token.at, w.f[6].at ? w.f[6].at : c->in, c->token.len);
    write_frame(c, 0, NULL, 0);
}

static void take(mg_client *c, message *m) {
    size_t member = 8, i = 0; text pong = {0};
    while (member < FIELDS - 1 && !m->f[member].at) member++;
    message b = parse(m->f[member]);
    uint64_t down_seq = m->f[1].number, is_range = member == GAP && b.f[1].number;
    uint64_t first = is_range ? b.f[1].number : down_seq;
    if (c->failures = 0, down_seq && down_seq <= c->received) return;
    while (i < c->opens && c->open[i].up_seq != b.f[1].number) i++;
    if (first > c->received + 1 || (member == RESPONSE && i == c->opens)) lose(c, 1);
    if (down_seq) c->received = down_seq;
    if (member == RESPONSE) {
        memmove(c->open + i, c->open + i + 1, (--c->opens - i) * sizeof *c->open);
        c->event(b.f[2].number ? "failed" : "status 0", b.f[15].at, b.f[15].len);
    }
    if (member == PUSH || member == GAP)
        c->event(member == PUSH ? "push" : "resync", b.f[15].at, b.f[15].len);
    if (member == PINGED) number(&pong, 1, b.f[1].number), write_frame(c, PONG, &pong, 0);
    if (member == GO_AWAY) c->in_flight = 0, c->not_before = now() + (double)b.f[3].number / 1000;
    if (m->f[ERROR].at) error(c, m->f[ERROR], 1);
}

int mg_request(mg_client *c, uint64_t command, const void *payload, size_t len) {
    if (c->opens >= c->in_flight || len > TEXT - 64) return 0;
    c->open[c->opens].body.len = 0, c->open[c->opens].up_seq = ++c->up_seq;
    number(&c->open[c->opens].body, 1, command), bytes(&c->open[c->opens++].body, 15, payload, len);
    return 1;
}

static void turn(mg_client *c, double wait) {
    if (c->fd < 0) open_connection(c);
    for (size_t i = 0; i < c->opens; i++)
        if (c->open[i].up_seq > c->sent)
            write_frame(c, REQUEST, &c->open[i].body, c->sent = c->open[i].up_seq);
    if (now() - c->heard >= 2 * c->interval || (!c->in_flight && !c->opens)) lose(c, 0);
    if (now() - c->pinged >= 0.6 * c->interval)
        c->pinged = now(), write_frame(c, PING, &(text){0}, 0);
    if (c->taken > c->acked) write_frame(c, 0, NULL, 0);
    if (wait > c->interval / 4) wait = c->interval / 4;
    for (message m; read_frame(c, wait, &m); wait = 0) take(c, &m);
}

int mg_poll(mg_client *c, double wait) {
    c->taken = c->received;
    if (!setjmp(c->out)) return turn(c, wait), 1;
    double bound = 0.1 * (1 << (c->failures < 9 ? c->failures++ : 8));
    double until = now() + bound + bound * rand() / RAND_MAX;
    if (c->not_before < until) c->not_before = until;
    if (c->fd >= 0) close(c->fd);
    return c->fd = -1, !c->is_final;
}

void mg_start(mg_client *c, const char *token, const char *application, const char *device) {
    text *t = &c->identity;
    number(t, 1, 1), number(t, 2, 1), number(t, 10, FRAME), c->fd = -1;
    bytes(t, 3, application, strlen(application)), bytes(t, 7, device, strlen(device));
    bytes(t, 11, token, strlen(token));
}
