/* The receiver of the benchmark: takes POSTs as fast as the kernel hands them over, and checks each.
 *
 * A POST is sound when its Content-Length is there and true, its body begins with '<' and ends with '>', and holds one
 * mark "BENCH-" with ten digits, the number of the postback. For every number it keeps how often it came and the times of
 * its first and its last arrival (CLOCK_MONOTONIC, which Python's time.monotonic reads as well, so that latency is
 * taken by one clock).
 *
 * What it answers depends on the path: /500 is answered 500, /hang never, /delay after the milliseconds of argv[2],
 * all others 200 at once. "mode 500" on standard input makes all of them 500 until "mode 200".
 *
 * argv: 1 highest number, 2 delay in ms. It prints its port; then it answers "stats" with a line of JSON, "dump FILE"
 * (writes count, first and last of every number) and "reset" with "ok". It ends with its standard input.
 * It serves 127.0.0.0/8 alone, on every address of it, so that each account can have a host of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM 16384
#define MAX_FD 65536
#define LATER 65536

struct peer {
    int used, waits;
    unsigned turn;
    char bytes[ROOM];
};
struct number {
    uint32_t count, pad;
    int64_t first_ns, last_ns;
};
struct later {
    int64_t at_ns;
    int fd;
    unsigned turn;
};

static struct peer *peers[MAX_FD];
static unsigned turns;
static struct number *numbers;
static long highest, delay_ms, posts, unsound, distinct, connections, first_ns, last_ns;
static int all_500, poll_fd;
static struct later *queue;
static long queue_head, queue_tail;

static const char OK[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
static const char ERROR_500[] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void drop(int fd) {
    close(fd);
    free(peers[fd]);
    peers[fd] = NULL;
}

static void answer(int fd, const char *text, size_t length) {
    if (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length) drop(fd);
}

static void note(const char *body, size_t length) {
    static const char mark[] = "BENCH-";
    const char *found = memmem(body, length, mark, sizeof mark - 1);
    size_t end = length;
    while (end && strchr("\r\n ", body[end - 1])) end--;
    long number = -1;
    if (found && found + sizeof mark - 1 + 10 <= body + length) {
        number = 0;
        for (const char *digit = found + sizeof mark - 1; digit < found + sizeof mark - 1 + 10; digit++) {
            if (*digit < '0' || *digit > '9') { number = -1; break; }
            number = number * 10 + (*digit - '0');
        }
    }
    posts++;
    if (number < 0 || number >= highest || !end || body[0] != '<' || body[end - 1] != '>') {
        unsound++;
        return;
    }
    int64_t now = now_ns();
    if (!numbers[number].count++) {
        distinct++;
        numbers[number].first_ns = now;
    }
    numbers[number].last_ns = now;
    if (!first_ns) first_ns = now;
    last_ns = now;
}

/* Answer every whole request that stands in the peer's bytes; what is left over moves to the front. */
static void serve(int fd) {
    struct peer *peer = peers[fd];
    while (peer && peer->used && !peer->waits) {
        char *head_end = memmem(peer->bytes, peer->used, "\r\n\r\n", 4);
        if (!head_end) {
            if (peer->used == ROOM) drop(fd);
            return;
        }
        *head_end = 0;
        char *line = strcasestr(peer->bytes, "\r\ncontent-length:");
        long length = line ? atol(line + 17) : -1;
        int expects = strcasestr(peer->bytes, "\r\nexpect: 100") != NULL;
        long begin = head_end + 4 - peer->bytes;
        if (length < 0 || begin + length > ROOM || strncmp(peer->bytes, "POST /", 6)) {
            unsound++;
            drop(fd);
            return;
        }
        if (peer->used < begin + length) {
            *head_end = '\r';
            if (expects && peer->used == begin) answer(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            return;
        }
        note(peer->bytes + begin, length);
        const char *path = peer->bytes + 5;
        int hangs = !strncmp(path, "/hang", 5), fails = all_500 || !strncmp(path, "/500", 4);
        int delays = delay_ms && !strncmp(path, "/delay", 6);
        peer->used -= begin + length;
        memmove(peer->bytes, peer->bytes + begin + length, peer->used);
        if (hangs) {
            peer->waits = 1;
        } else if (delays) {
            peer->waits = 1;
            queue[queue_tail++ % LATER] = (struct later){now_ns() + delay_ms * 1000000LL, fd, peer->turn};
        } else if (fails) {
            answer(fd, ERROR_500, sizeof ERROR_500 - 1);
        } else {
            answer(fd, OK, sizeof OK - 1);
        }
        peer = peers[fd];
    }
}

static void command(char *line) {
    char path[4096];
    if (!strncmp(line, "stats", 5)) {
        printf("{\"posts\": %ld, \"distinct\": %ld, \"unsound\": %ld, \"connections\": %ld, \"first_s\": %.6f, \"last_s\": %.6f}\n",
               posts, distinct, unsound, connections, first_ns / 1e9, last_ns / 1e9);
    } else if (sscanf(line, "dump %4095s", path) == 1) {
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(numbers, sizeof *numbers, highest, file) != (size_t)highest || fclose(file)) exit(1);
        puts("ok");
    } else if (!strncmp(line, "mode ", 5)) {
        all_500 = !strncmp(line + 5, "500", 3);
        puts("ok");
    } else if (!strncmp(line, "reset", 5)) {
        memset(numbers, 0, highest * sizeof *numbers);
        posts = unsound = distinct = connections = first_ns = last_ns = 0;
        puts("ok");
    }
    fflush(stdout);
}

static void take(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct sockaddr_in own;
        socklen_t size = sizeof own;
        int one = 1;
        if (fd >= MAX_FD || getsockname(fd, (struct sockaddr *)&own, &size) || (ntohl(own.sin_addr.s_addr) >> 24) != 127) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        peers[fd] = calloc(1, sizeof(struct peer));
        peers[fd]->turn = ++turns;
        connections++;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    highest = atol(argv[1]);
    delay_ms = atol(argv[2]);
    numbers = calloc(highest, sizeof *numbers);
    queue = calloc(LATER, sizeof *queue);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in own = {.sin_family = AF_INET};
    socklen_t size = sizeof own;
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&own, &size);
    printf("%d\n", ntohs(own.sin_port));
    fflush(stdout);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        int wait_ms = -1;
        while (queue_head < queue_tail) {
            struct later *next = &queue[queue_head % LATER];
            int64_t left_ns = next->at_ns - now_ns();
            if (left_ns > 0) {
                wait_ms = left_ns / 1000000 + 1;
                break;
            }
            queue_head++;
            if (peers[next->fd] && peers[next->fd]->turn == next->turn) { /* else it has left meanwhile */
                peers[next->fd]->waits = 0;
                if (all_500) answer(next->fd, ERROR_500, sizeof ERROR_500 - 1);
                else answer(next->fd, OK, sizeof OK - 1);
                if (peers[next->fd]) serve(next->fd);
            }
        }
        int count = epoll_wait(poll_fd, events, 512, wait_ms);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                take(listener);
            } else if (fd == 0) {
                static char line[4200];
                ssize_t got = read(0, line, sizeof line - 1);
                if (got <= 0) return 0;
                line[got] = 0;
                command(line);
            } else if (peers[fd]) {
                struct peer *peer = peers[fd];
                if (peer->used == ROOM) { drop(fd); continue; }
                ssize_t got = recv(fd, peer->bytes + peer->used, ROOM - peer->used, 0);
                if (got > 0) {
                    peer->used += got;
                    serve(fd);
                } else if (got == 0 || errno != EAGAIN) {
                    drop(fd);
                }
            }
        }
    }
}
