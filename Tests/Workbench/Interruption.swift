import Foundation
import Synchronization

/// Ctrl-C or SIGTERM: what runs ends early and in good order.
package enum Interruption {
    private static let flag = Atomic<Bool>(false)

    package static var happened: Bool { flag.load(ordering: .relaxed) }

    /// Must be called before other threads exist, for they inherit what is blocked.
    package static func watch() {
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGINT)
        sigaddset(&signals, SIGTERM)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        Thread.detachNewThread {
            var watched = sigset_t()
            sigemptyset(&watched)
            sigaddset(&watched, SIGINT)
            sigaddset(&watched, SIGTERM)
            var signal: Int32 = 0
            var first: Double?
            while sigwait(&watched, &signal) == 0 {
                // Asked again later, it does not tidy up; some senders say everything twice at once.
                if let since = first, monotonicSeconds() - since > 1 { _exit(130) }
                first = first ?? monotonicSeconds()
                flag.store(true, ordering: .relaxed)
            }
        }
    }
}
