// What stands between a server and its system, loaded before the system's own library: while the file `disk`
// is in the directory that FAULTS names, no file is read, written or synced to an end; and whatever is sent to
// the ports that the file `cut` there lists, a space behind each, fails.

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void path_of(char *path, size_t size, const char *fault) {
    const char *faults = getenv("FAULTS");
    snprintf(path, size, "%s/%s", faults ? faults : "", fault);
}

static void wait_for_the_disk(void) {
    char path[4096];
    path_of(path, sizeof path, "disk");
    while (access(path, F_OK) == 0) usleep(5000);
}

static int is_cut(const struct sockaddr *peer) {
    if (peer->sa_family != AF_INET) return 0;
    char path[4096];
    path_of(path, sizeof path, "cut");
    FILE *list = fopen(path, "r");
    if (!list) return 0;
    int port, found = 0;
    while (!found && fscanf(list, "%d", &port) == 1)
        found = port == ntohs(((const struct sockaddr_in *)peer)->sin_port);
    fclose(list);
    return found;
}

// For systems where a position has 64 bits under both names.
ssize_t pread(int fd, void *bytes, size_t count, off_t at) {
    wait_for_the_disk();
    return syscall(SYS_pread64, fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t at) { return pread(fd, bytes, count, at); }

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    wait_for_the_disk();
    return syscall(SYS_pwrite64, fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { return pwrite(fd, bytes, count, at); }

int fsync(int fd) {
    wait_for_the_disk();
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_for_the_disk();
    return syscall(SYS_fdatasync, fd);
}

int connect(int fd, const struct sockaddr *peer, socklen_t size) {
    if (is_cut(peer)) {
        errno = EHOSTUNREACH;
        return -1;
    }
    return syscall(SYS_connect, fd, peer, size);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && is_cut((struct sockaddr *)&peer)) {
        errno = ECONNRESET;
        return -1;
    }
    return syscall(SYS_sendto, fd, bytes, count, flags, NULL, 0);
}
