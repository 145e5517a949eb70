import Foundation

/// Wakes a thread that waits in `poll`. Anyone may ring; one thread polls `descriptor` and answers.
final class Bell: Sendable {
    /// Readable after a ring, until answered.
    let descriptor: Int32
    private let rope: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no descriptors left")
        for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        (descriptor, rope) = (ends[0], ends[1])
    }

    deinit {
        close(descriptor)
        close(rope)
    }

    func ring() {
        var one: UInt8 = 1
        write(rope, &one, 1)
    }

    func answer() {
        var rings = [UInt8](repeating: 0, count: 64)
        while read(descriptor, &rings, rings.count) > 0 {}
    }

    var pollEntry: pollfd { pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0) }
}
