import Foundation

/// Seconds on a clock that nobody sets.
package func monotonicSeconds() -> Double {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
}

/// Asks `condition` every few milliseconds until it holds or `seconds` have passed.
///
/// - Returns: whether it came to hold.
@discardableResult
package func waitUpTo(_ seconds: Double, until condition: () throws -> Bool) rethrows -> Bool {
    let end = monotonicSeconds() + seconds
    while true {
        if try condition() { return true }
        if monotonicSeconds() >= end { return false }
        usleep(5_000)
    }
}

/// What went wrong in the harness itself, in words.
package struct WorkbenchError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
