import Foundation
import Workbench

/// A durable subscriber that takes everything, acknowledges it and keeps count for each publisher.
final class Collector {
    private let wire: Wire
    /// By publisher: the highest number that came, how many were new, and how many came again.
    private(set) var highest: [UInt64]
    private(set) var fresh: [UInt64]
    private(set) var repeated = 0
    /// Numbers that came after a higher one without having come before it.
    private(set) var outOfOrder = 0
    /// By publisher: numbers passed over; they may come later only out of order.
    private(set) var missing: [Set<UInt64>]

    static let clientIdentifier = "bench-collector"

    /// Begins the Session and leaves, so that messages wait for it.
    static func subscribe(port: UInt16, filter: String = "bench/#") throws {
        let wire = try Wire(port: port, clientIdentifier: clientIdentifier, cleanSession: false)
        try wire.subscribe(filter, qos: 1)
        wire.disconnect()
    }

    init(port: UInt16, publishers: Int, isDurable: Bool = true) throws {
        wire = try Wire(port: port, clientIdentifier: Self.clientIdentifier, cleanSession: !isDurable)
        highest = Array(repeating: 0, count: publishers)
        fresh = Array(repeating: 0, count: publishers)
        missing = Array(repeating: [], count: publishers)
        if !isDurable { try wire.subscribe("bench/#", qos: 1) }
    }

    /// Takes messages until `count` new ones have come, or none for `patience` seconds.
    ///
    /// - Parameter watch: called about every 100 ms.
    func take(_ count: Int, patience: Double = 20, watch: () -> Void = {}) {
        var last = monotonicSeconds()
        var watched = last
        while Int(fresh.reduce(0, +)) < count {
            wire.flush()
            var poll = pollfd(
                fd: wire.descriptor, events: Int16(POLLIN) | (wire.hasUnsent ? Int16(POLLOUT) : 0), revents: 0
            )
            _ = Glibc.poll(&poll, 1, 100)
            guard wire.read() else { return }
            let now = monotonicSeconds()
            if digest() { last = now }
            if now - watched > 0.1 {
                watch()
                watched = now
            }
            if now - last > patience { return }
        }
    }

    /// - Returns: whether there was anything.
    private func digest() -> Bool {
        let pending = wire.pending
        var acknowledgements: [UInt8] = []
        var consumed = 0
        pending.withUnsafeBufferPointer { bytes in
            var at = 0
            while let (length, start) = Self.remainingLength(bytes, at + 1), start + length <= bytes.count {
                if bytes[at] & 0xF0 == 0x30 {
                    let topic = Int(bytes[start]) << 8 | Int(bytes[start + 1])
                    let identifier = start + 2 + topic
                    acknowledgements += [0x40, 2, bytes[identifier], bytes[identifier + 1]]
                    note(bytes, at: identifier + 2)
                }
                at = start + length
            }
            consumed = at
        }
        wire.consume(consumed)
        if !acknowledgements.isEmpty { wire.send(acknowledgements) }
        return consumed > 0
    }

    private func note(_ bytes: UnsafeBufferPointer<UInt8>, at start: Int) {
        var publisher = 0
        for i in 0..<4 { publisher = publisher << 8 | Int(bytes[start + i]) }
        var number: UInt64 = 0
        for i in 4..<12 { number = number << 8 | UInt64(bytes[start + i]) }
        if number > highest[publisher] {
            if number > highest[publisher] + 1 {
                for skipped in highest[publisher] + 1..<number { missing[publisher].insert(skipped) }
            }
            highest[publisher] = number
            fresh[publisher] += 1
        } else if missing[publisher].remove(number) != nil {
            outOfOrder += 1
            fresh[publisher] += 1
        } else {
            repeated += 1
        }
    }

    private static func remainingLength(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int) -> (Int, Int)? {
        var value = 0
        var shift = 0
        var at = start
        while at < bytes.count {
            value |= Int(bytes[at] & 127) << shift
            at += 1
            if bytes[at - 1] & 128 == 0 { return (value, at) }
            shift += 7
        }
        return nil
    }

    func leave() { wire.disconnect() }

    /// How many of these have not come.
    ///
    /// - Parameter owed: by publisher, the numbers of its messages that were acknowledged.
    func lost(of owed: [[ClosedRange<UInt64>]]) -> Int {
        var lost = 0
        for (publisher, ranges) in owed.enumerated() {
            for range in ranges {
                if range.upperBound > highest[publisher] {
                    lost += Int(range.upperBound - max(highest[publisher], range.lowerBound - 1))
                }
                lost += missing[publisher].count { range.contains($0) }
            }
        }
        return lost
    }
}
