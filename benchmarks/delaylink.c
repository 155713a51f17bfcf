/* Lines of a set delay and rate between network namespaces, where the kernel has no netem.
 *
 *   delaylink DEVICE DELAY_NS BITS_PER_SECOND PID=ADDRESS PID=ADDRESS ...
 *
 * Makes a tun device DEVICE in the network namespace of each process PID and carries IPv4 packets between them. Each
 * ordered pair of namespaces has a line of its own. On a line packets stay in order; each takes the time that its bits
 * need at the rate, beginning when the one before is through, and then the delay. A rate of 0 is no limit. A line
 * holds at most LINE_BYTES; what would be more is lost, as at a router.
 *
 * Writes "ready" to standard output once all devices are there; whoever started it then gives them their addresses.
 * Runs until it gets SIGTERM or SIGINT, and then writes how many packets were carried and lost. Needs CAP_NET_ADMIN and
 * CAP_SYS_ADMIN. The devices vanish with it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_ENDS = 16,
    MOST_PACKET = 1 << 17,
    LINE_BYTES = 16 << 20,
    /* preamble 8, Ethernet header 14, check sequence 4, gap between frames 12 */
    FRAME_BYTES = 38,
    BURST = 32,
};

struct packet {
    struct packet *next;
    int64_t arrives; /* ns of CLOCK_MONOTONIC */
    size_t size;
    unsigned char bytes[]; /* as read from the device: virtio_net_hdr, then IP */
};

struct line {
    struct packet *first, **last;
    int64_t free_at; /* when the last bit of the packet before has left */
    size_t held;
};

struct end {
    int device;
    struct in_addr address;
};

static struct end ends[MOST_ENDS];
static struct line lines[MOST_ENDS][MOST_ENDS];
static int count;
static int64_t delay;
static double nanoseconds_per_byte;
static unsigned long long carried, lost;
static volatile sig_atomic_t stopping;

static void stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "delaylink: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int device_in(long process, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/ns/net", process);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) < 0)
        fail(path);
    close(space);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0)
        fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(device, TUNSETIFF, &request) < 0)
        fail("TUNSETIFF");
    /* Without these the kernel would cut streams into single frames and sum each one up: time that only this link costs. */
    if (ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0)
        fail("TUNSETOFFLOAD");
    return device;
}

/* Bytes that a packet takes on a wire, where the kernel left it to us to cut it into frames. */
static double bytes_on_wire(const unsigned char *bytes, size_t size)
{
    struct virtio_net_hdr offload;
    memcpy(&offload, bytes, sizeof offload);
    size -= sizeof offload;
    if (offload.gso_type == VIRTIO_NET_HDR_GSO_NONE || offload.gso_size == 0)
        return (double)size + FRAME_BYTES;
    const struct iphdr *ip = (const void *)(bytes + sizeof offload);
    size_t headers = 4u * ip->ihl;
    if (size < headers + sizeof(struct tcphdr))
        return (double)size + FRAME_BYTES;
    const struct tcphdr *tcp = (const void *)(bytes + sizeof offload + headers);
    headers += 4u * tcp->doff;
    size_t content = size > headers ? size - headers : 0;
    size_t frames = (content + offload.gso_size - 1) / offload.gso_size;
    if (frames == 0)
        frames = 1;
    return (double)content + (double)(frames * (headers + FRAME_BYTES));
}

static int end_of(const struct in_addr address)
{
    for (int i = 0; i < count; i++)
        if (ends[i].address.s_addr == address.s_addr)
            return i;
    return -1;
}

static void take_in(int from)
{
    static _Alignas(16) unsigned char bytes[MOST_PACKET];
    for (int n = 0; n < BURST; n++) {
        ssize_t size = read(ends[from].device, bytes, sizeof bytes);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (size < 0)
            fail("reading a device");
        if ((size_t)size < sizeof(struct virtio_net_hdr) + sizeof(struct iphdr))
            continue;
        const struct iphdr *ip = (const void *)(bytes + sizeof(struct virtio_net_hdr));
        if (ip->version != 4)
            continue; /* what IPv6 sends by itself when a device comes up */
        int to = end_of((struct in_addr){.s_addr = ip->daddr});
        if (to < 0 || to == from)
            continue;
        struct line *line = &lines[from][to];
        if (line->held + (size_t)size > LINE_BYTES) {
            lost++;
            continue;
        }
        struct packet *packet = malloc(sizeof *packet + (size_t)size);
        if (!packet)
            fail("memory");
        int64_t begins = now();
        if (line->free_at > begins)
            begins = line->free_at;
        line->free_at = begins + (int64_t)(bytes_on_wire(bytes, (size_t)size) * nanoseconds_per_byte);
        packet->next = NULL;
        packet->arrives = line->free_at + delay;
        packet->size = (size_t)size;
        memcpy(packet->bytes, bytes, (size_t)size);
        *line->last = packet;
        line->last = &packet->next;
        line->held += packet->size;
    }
}

/* Gives out what has arrived on a line; when the next packet will have, or -1 where none is under way. */
static int64_t give_out(struct line *line, int to)
{
    while (line->first) {
        struct packet *packet = line->first;
        if (packet->arrives > now())
            return packet->arrives;
        if (write(ends[to].device, packet->bytes, packet->size) < 0)
            lost++;
        else
            carried++;
        line->held -= packet->size;
        line->first = packet->next;
        if (!line->first)
            line->last = &line->first;
        free(packet);
    }
    return -1;
}

int main(int argc, char **argv)
{
    if (argc < 6 || argc - 4 > MOST_ENDS) {
        fprintf(stderr, "usage: delaylink DEVICE DELAY_NS BITS_PER_SECOND PID=ADDRESS PID=ADDRESS ...\n");
        return 2;
    }
    delay = atoll(argv[2]);
    double rate = atof(argv[3]);
    nanoseconds_per_byte = rate > 0 ? 8e9 / rate : 0;
    count = argc - 4;
    for (int i = 0; i < count; i++) {
        char *rest;
        long process = strtol(argv[4 + i], &rest, 10);
        if (*rest != '=' || inet_pton(AF_INET, rest + 1, &ends[i].address) != 1) {
            fprintf(stderr, "delaylink: PID=ADDRESS, not %s\n", argv[4 + i]);
            return 2;
        }
        ends[i].device = device_in(process, argv[1]);
        for (int j = 0; j < count; j++)
            lines[i][j].last = &lines[i][j].first;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    /* A wire does not wait for a free processor, nor for a timer to be worth waking up for. Both are refused
       to some who may make devices; then the link is merely less exact. */
    struct sched_param first_of_all = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &first_of_all);
    prctl(PR_SET_TIMERSLACK, 1UL);
    puts("ready");
    fflush(stdout);
    while (!stopping) {
        int64_t next = -1;
        for (int i = 0; i < count; i++)
            for (int j = 0; j < count; j++) {
                int64_t due = give_out(&lines[i][j], j);
                if (due >= 0 && (next < 0 || due < next))
                    next = due;
            }
        struct pollfd waiting[MOST_ENDS];
        for (int i = 0; i < count; i++)
            waiting[i] = (struct pollfd){.fd = ends[i].device, .events = POLLIN};
        struct timespec pause = {0}, *limit = NULL;
        if (next >= 0) {
            int64_t left = next - now();
            if (left > 0)
                pause = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
            limit = &pause;
        }
        if (ppoll(waiting, (nfds_t)count, limit, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        for (int i = 0; i < count; i++)
            if (waiting[i].revents & POLLIN)
                take_in(i);
    }
    printf("%llu carried, %llu lost\n", carried, lost);
    return 0;
}
