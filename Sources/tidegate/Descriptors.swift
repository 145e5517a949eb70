import Glibc

/// What this process may have open at once: RLIMIT_NOFILE of setrlimit(2).
///
/// A client must not take the descriptor that the journal needs to read a queue back, or to go on in a new segment.
/// So the connections are bounded by what is left when everything else has what it needs.
struct Descriptors {
    let most: Int

    /// The poller, the store and its files, the control socket and its peers, standard streams, certificates while they
    /// are read; and some to spare.
    private static let ownMax = 48
    /// A connection, the attempt at the next address, and what its address or its certificate is read from.
    private static let ofUplinkMax = 4

    /// Takes all that the hard limit allows.
    static func takeAll() -> Descriptors {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return Descriptors(most: 1024)
        }
        var raised = limit
        raised.rlim_cur = limit.rlim_max
        if raised.rlim_cur > limit.rlim_cur,
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0
        {
            limit = raised
        }
        return Descriptors(most: Int(clamping: limit.rlim_cur))
    }

    /// How many clients may be connected at once.
    func connectionsMax(listeners: Int, uplinks: Int) -> Int {
        max(1, most - Self.ownMax - listeners - uplinks * Self.ofUplinkMax)
    }
}
