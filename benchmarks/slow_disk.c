/* A disk whose durable writes take longer: each fsync and fdatasync of a process waits SLOW_US microseconds first.

   cc -shared -fPIC -o slow_disk.so benchmarks/slow_disk.c
   SLOW_US=3000 LD_PRELOAD=./slow_disk.so .venv/bin/python benchmarks/claim.py 20000 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static long slowly(long call, int file) {
    const char *wait = getenv("SLOW_US");
    if (wait) usleep(atoi(wait));
    return syscall(call, file);
}

int fsync(int file) { return slowly(SYS_fsync, file); }
int fdatasync(int file) { return slowly(SYS_fdatasync, file); }
