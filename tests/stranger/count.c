/* A program over tools/examples/minimal/minimal.c: COUNT requests, and as many pushes, each printed.
 *     count HOST PORT TOKEN COMMAND COUNT */
#include <stdio.h>

#include "minimal.c"

static long responses, pushes;

static void print(const char *what, const uint8_t *payload, size_t len) {
    printf("%s %.*s\n", what, (int)len, payload ? (const char *)payload : "");
    fflush(stdout);
    responses += !strcmp(what, "status 0");
    pushes += !strcmp(what, "push");
}

int main(int argc, char **argv) {
    static mg_client client;
    if (argc != 6) return 2;
    client.host = argv[1], client.port = argv[2], client.event = print;
    mg_start(&client, argv[3], "minimal", "in-c");
    long count = atol(argv[5]), asked = 0;
    while (responses < count || pushes < count) {
        char payload[24];
        while (asked < count) {
            int len = snprintf(payload, sizeof payload, "%ld", asked);
            if (!mg_request(&client, strtoul(argv[4], NULL, 0), payload, (size_t)len)) break;
            asked++;
        }
        if (!mg_poll(&client, 1)) return 1;
    }
    return 0;
}
