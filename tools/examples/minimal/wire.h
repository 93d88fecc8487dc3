/* Messages of protobuf, as far as minimal.c needs them: the first seventeen fields of each. */
#include <stdint.h>
#include <string.h>

enum { TEXT = 4096, FIELDS = 17 };
typedef struct { size_t len; uint8_t at[TEXT]; } text;                       /* to be written */
typedef struct { uint64_t number; const uint8_t *at; size_t len; } field;   /* that was read */
typedef struct { field f[FIELDS]; } message;

static void put(text *t, uint64_t v) {
    for (; v > 127; v >>= 7) t->at[t->len++] = (uint8_t)(v | 128);
    t->at[t->len++] = (uint8_t)v;
}

static void number(text *t, int f, uint64_t v) {
    if (v) put(t, (uint64_t)f << 3), put(t, v);
}

static void bytes(text *t, int f, const void *at, size_t len) {
    put(t, (uint64_t)f << 3 | 2), put(t, len);
    memcpy(t->at + t->len, at, len), t->len += len;
}

static uint64_t get(const uint8_t **at, const uint8_t *end) {
    uint64_t v = 0;
    for (int shift = 0, more = 1; *at < end && more; shift += 7) {
        v |= (uint64_t)(**at & 127) << (shift & 63), more = *(*at)++ > 127;
    }
    return v;
}

static message parse(field body) {
    message m = {0};
    for (const uint8_t *at = body.at, *end = at + body.len; at < end;) {
        uint64_t key = get(&at, end), kind = key & 7;
        uint64_t n = kind == 1 ? 8 : kind == 5 ? 4 : get(&at, end);
        field f = {n, at, n < (size_t)(end - at) ? n : (size_t)(end - at)};
        if (kind) at += f.len;
        if (key >> 3 < FIELDS) m.f[key >> 3] = f;
    }
    return m;
}
