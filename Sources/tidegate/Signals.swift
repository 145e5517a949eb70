import Glibc

/// SIGTERM, SIGINT and SIGHUP, taken by the main thread in peace: no handler ever interrupts anything.
struct Signals {
    private var set = sigset_t()

    /// Blocks the signals in this thread and in every thread it starts from now on: call it before the first.
    init() {
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&set, number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        // A peer that is gone is told by the error of the write.
        signal(SIGPIPE, SIG_IGN)
    }

    enum Wish { case stop, reload }

    /// Waits for one of them.
    mutating func wait() -> Wish {
        var number: Int32 = 0
        while sigwait(&set, &number) != 0 {}
        return number == SIGHUP ? .reload : .stop
    }
}
