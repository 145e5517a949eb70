import Foundation
import Workbench

/// Publishers on one thread: each sends QoS 1 messages as fast as its window of unacknowledged ones allows, or
/// all together at a stated rate. A payload begins with its publisher's number and its own, so that a
/// subscriber can tell what is missing, doubled or out of order.
final class Publishers {
    struct Plan {
        var port: UInt16
        var count = 100
        /// Messages without PUBACK that each may have.
        var window = 20
        var payloadBytes = 256
        var topicPrefix = "bench/"
        /// In bytes; shorter topics are filled up.
        var topicBytes = 0
        /// Of all together; nil for as fast as can be.
        var perSecond: Double?
    }

    private struct Publisher {
        let wire: Wire
        var packet: [UInt8]
        let identifierAt: Int
        let numberAt: Int
        var sent: UInt64
        var acknowledged: UInt64
        /// When each message without PUBACK left, if latencies are wanted.
        var leftAt: [Double] = []
    }

    private let plan: Plan
    private var publishers: [Publisher] = []
    /// Seconds from PUBLISH to PUBACK, when a rate is stated.
    private(set) var latencies: [Double] = []

    /// - Parameter numbers: the last number each publisher has used.
    init(_ plan: Plan, numbers: [UInt64]? = nil) throws {
        self.plan = plan
        for index in 0..<plan.count {
            let wire = try Wire(port: plan.port, clientIdentifier: "bench-\(index)", cleanSession: true)
            var topic = "\(plan.topicPrefix)\(index)"
            while topic.utf8.count < plan.topicBytes { topic += "x" }
            let name = Wire.string(topic)
            let body = name.count + 2 + plan.payloadBytes
            let head = [0x32] + Wire.length(body) + name
            var packet = head + [0, 0]
            let numberAt = packet.count
            packet += withUnsafeBytes(of: UInt32(index).bigEndian) { Array($0) }
            packet += [UInt8](repeating: 0, count: 8)
            // Not all alike, in case a file system compresses.
            for i in 0..<max(0, plan.payloadBytes - 12) {
                packet.append(UInt8(truncatingIfNeeded: i &* 167 &+ index))
            }
            let start = numbers?[index] ?? 0
            publishers.append(
                Publisher(
                    wire: wire, packet: packet, identifierAt: head.count, numberAt: numberAt + 4, sent: start,
                    acknowledged: start))
        }
    }

    var sent: [UInt64] { publishers.map(\.sent) }
    var acknowledged: [UInt64] { publishers.map(\.acknowledged) }

    /// Publishes until every publisher has reached `total / count` acknowledged messages beyond where it began,
    /// `seconds` are over, or a connection ends.
    ///
    /// - Returns: the messages acknowledged meanwhile.
    @discardableResult
    func run(total: Int = .max, seconds: Double = .infinity, until stop: () -> Bool = { false }) -> Int {
        let began = monotonicSeconds()
        self.total = 0
        let first = acknowledged.reduce(0, +)
        let share = total == .max ? UInt64.max / 2 : UInt64(total / plan.count)
        let goals = acknowledged.map { $0 + share }
        var polls = publishers.map { pollfd(fd: $0.wire.descriptor, events: Int16(POLLIN), revents: 0) }
        var allowed = 0.0
        var isOpen = true
        while isOpen {
            let now = monotonicSeconds()
            guard now - began < seconds, !stop() else { break }
            if let rate = plan.perSecond { allowed = (now - began) * rate + 1 }
            var done = true
            for index in publishers.indices {
                fill(index, goal: goals[index], allowed: &allowed, now: now)
                if publishers[index].acknowledged < goals[index] { done = false }
                polls[index].events = Int16(POLLIN) | (publishers[index].wire.hasUnsent ? Int16(POLLOUT) : 0)
            }
            if done { break }
            _ = poll(&polls, nfds_t(polls.count), plan.perSecond == nil ? 100 : 1)
            for index in publishers.indices where polls[index].revents != 0 {
                if polls[index].revents & Int16(POLLOUT) != 0 { publishers[index].wire.flush() }
                if !publishers[index].wire.read() { isOpen = false }
                settle(index)
            }
        }
        return Int(acknowledged.reduce(0, +) - first)
    }

    /// Waits until everything sent is acknowledged.
    func finish(within seconds: Double) -> Bool {
        let end = monotonicSeconds() + seconds
        while monotonicSeconds() < end {
            for index in publishers.indices {
                publishers[index].wire.flush()
                guard publishers[index].wire.read() else { return false }
                settle(index)
            }
            if publishers.allSatisfy({ $0.sent == $0.acknowledged }) { return true }
            usleep(1000)
        }
        return false
    }

    /// Sent in this run, when a rate is stated.
    private var total = 0.0

    private func fill(_ index: Int, goal: UInt64, allowed: inout Double, now: Double) {
        let publisher = publishers[index]
        var room = UInt64(plan.window) - (publisher.sent - publisher.acknowledged)
        room = min(room, goal > publisher.sent ? goal - publisher.sent : 0)
        if plan.perSecond != nil { room = min(room, total < allowed ? 1 : 0) }
        guard room > 0 else { return }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(room) * publisher.packet.count)
        for _ in 0..<room {
            publishers[index].sent += 1
            let number = publishers[index].sent
            let identifier = UInt16(truncatingIfNeeded: (number - 1) % 65_535 + 1)
            publishers[index].packet[publisher.identifierAt] = UInt8(identifier >> 8)
            publishers[index].packet[publisher.identifierAt + 1] = UInt8(identifier & 255)
            withUnsafeBytes(of: number.bigEndian) { number in
                for i in 0..<8 { publishers[index].packet[publisher.numberAt + i] = number[i] }
            }
            bytes += publishers[index].packet
            if plan.perSecond != nil {
                total += 1
                publishers[index].leftAt.append(now)
            }
        }
        publishers[index].wire.send(bytes)
    }

    private func settle(_ index: Int) {
        let wire = publishers[index].wire
        var pending = wire.pending
        var count = 0
        while pending.count >= 4 {
            let start = pending.startIndex
            let expected = UInt16(truncatingIfNeeded: publishers[index].acknowledged % 65_535 + 1)
            let identifier = UInt16(pending[start + 2]) << 8 | UInt16(pending[start + 3])
            guard pending[start] == 0x40, identifier == expected else {
                // PUBACKs come in the order of their PUBLISH packets [MQTT-4.6.0-2].
                fatalError(
                    "publisher \(index) expected PUBACK \(expected) and got \(Array(pending.prefix(4)))")
            }
            publishers[index].acknowledged += 1
            if !publishers[index].leftAt.isEmpty {
                latencies.append(monotonicSeconds() - publishers[index].leftAt.removeFirst())
            }
            pending = pending.dropFirst(4)
            count += 4
        }
        wire.consume(count)
    }
}
