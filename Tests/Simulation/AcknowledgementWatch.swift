import GatewayCore

/// Looks over the shoulder of one life of the gateway: what a receiver acknowledged is recorded within the time that the
/// plan gives it (rule A8). Later would be legal redelivery after a power cut, and flash that is never freed, so that no
/// peer could tell.
struct AcknowledgementWatch {
    /// In which no Record came although there was something to record, as the process counts them: while the machine
    /// sleeps there are none.
    private var seconds: [SessionID: UInt64] = [:]
    private let most: UInt64
    private(set) var violations: [String] = []

    init(_ limits: Limits) { most = limits.lazyAcknowledgementMilliseconds / 1000 + 2 }

    mutating func appended(_ record: Record) {
        switch record {
        case .acknowledged(let settled): seconds[settled.session] = nil
        case .sessionEnded(let session, _): seconds[session] = nil
        default: break
        }
    }

    /// Once a second.
    ///
    /// - Complexity: O(Sessions · log Sessions)
    mutating func looks(at state: borrowing DurableState) {
        for id in state.sessionIDs {
            guard let session = state[id], session.isPersistent,
                session.queue.queuedCount > session.queue.waitingCount
            else {
                seconds[id] = nil
                continue
            }
            seconds[id, default: 0] += 1
            if let waited = seconds[id], waited > most, violations.count < 5 {
                violations.append(
                    "A8: what \(session.owner) acknowledged is not recorded after \(waited) seconds")
            }
        }
    }
}
