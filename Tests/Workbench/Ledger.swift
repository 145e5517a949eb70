import Synchronization

/// Which way messages go.
package enum Direction: String, Sendable, CaseIterable {
    case up = "sensor → cloud"
    case down = "cloud → device"
}

/// The books of a run: what every publisher sent, what was acknowledged to it, and what arrived.
///
/// A stream is what one publisher sends to one place at one QoS, numbered from 1. Every message carries its
/// stream and number, so a receipt can be told from any other.
package final class Ledger: Sendable {
    package struct StreamID: Hashable, Sendable { package let number: Int }

    /// What the books say of one stream, or of several summed.
    package struct Totals: Equatable, Sendable {
        package var sent = 0
        package var acknowledged = 0
        /// Different messages that arrived.
        package var received = 0
        /// Acknowledged to the publisher, and never arrived.
        package var lost = 0
        /// Arrivals beyond the first of the same message.
        package var duplicated = 0
        /// First arrivals after a later message of the same stream had arrived.
        package var outOfOrder = 0
        /// Answered with a reason code of 0x80 or above: refused, and not owed.
        package var refused = 0
        /// QoS 1 and 2 only: sent, neither refused nor acknowledged.
        package var unanswered = 0
        /// QoS 1 and 2 only: sent, not refused, not arrived.
        package var underWay = 0
        package init() {}
    }

    private struct Stream {
        let direction: Direction
        let qos: Int
        let name: String
        // Indexed by number; entry 0 is never used.
        var acknowledged: [Bool] = [false]
        var refused: [Bool] = [false]
        var arrivals: [UInt16] = [0]
        var highestArrived = 0
        var totals = Totals()
    }

    private struct Books {
        var streams: [Stream] = []
        /// Arrivals that name no message ever sent.
        var strangers = 0
    }

    /// Tells this ledger's messages from those of any other.
    package let mark = Int.random(in: 1..<1_000_000_000)
    private let books = Mutex(Books())

    package init() {}

    package func open(_ direction: Direction, qos: Int, name: String) -> StreamID {
        books.withLock {
            $0.streams.append(Stream(direction: direction, qos: qos, name: name))
            return StreamID(number: $0.streams.count - 1)
        }
    }

    /// The next message of `stream` is about to be handed to the client library; its number.
    package func sends(_ stream: StreamID) -> Int {
        change(stream) {
            $0.acknowledged.append(false)
            $0.refused.append(false)
            $0.arrivals.append(0)
            $0.totals.sent += 1
            return $0.totals.sent
        }
    }

    /// PUBACK or PUBCOMP came.
    package func acknowledged(_ stream: StreamID, _ number: Int) {
        change(stream) {
            guard !$0.acknowledged[number] else { return }
            $0.acknowledged[number] = true
            $0.totals.acknowledged += 1
        }
    }

    package func refused(_ stream: StreamID, _ number: Int) {
        change(stream) {
            guard !$0.refused[number] else { return }
            $0.refused[number] = true
            $0.totals.refused += 1
        }
    }

    package func received(_ stream: StreamID, _ number: Int) {
        let known = books.withLock { books -> Bool in
            guard books.streams.indices.contains(stream.number), number > 0,
                number <= books.streams[stream.number].totals.sent
            else {
                books.strangers += 1
                return false
            }
            return true
        }
        guard known else { return }
        change(stream) {
            $0.arrivals[number] += 1
            if $0.arrivals[number] > 1 {
                $0.totals.duplicated += 1
                return
            }
            $0.totals.received += 1
            if number < $0.highestArrived { $0.totals.outOfOrder += 1 }
            $0.highestArrived = max($0.highestArrived, number)
        }
    }

    /// The sum over the streams of a direction and QoS; nil asks for all.
    ///
    /// - Complexity: O(messages), for `lost` and `underWay` are counted one by one.
    package func totals(_ direction: Direction? = nil, qos: Int? = nil) -> Totals {
        books.withLock { books in
            var sum = Totals()
            for stream in books.streams
            where (direction == nil || stream.direction == direction) && (qos == nil || stream.qos == qos) {
                sum.add(Self.counted(stream))
            }
            return sum
        }
    }

    /// Messages at QoS 1 and 2 that were sent and have not arrived. O(streams).
    package func backlog(_ direction: Direction) -> Int {
        books.withLock { books in
            books.streams.reduce(0) { sum, stream in
                guard stream.direction == direction, stream.qos > 0 else { return sum }
                return sum + max(0, stream.totals.sent - stream.totals.received - stream.totals.refused)
            }
        }
    }

    /// Arrivals that name no message ever sent.
    package var strangers: Int { books.withLock { $0.strangers } }

    /// A message of which the books say something bad.
    package struct Fault: Hashable, Sendable {
        package let direction: Direction
        package let qos: Int
        package let message: WireTap.Message
        package let arrivals: Int
    }

    /// Messages at QoS 1 and 2 that were acknowledged and never arrived.
    package func lost() -> [Fault] { faults { $0 && $1 == 0 } }

    /// Messages at QoS 2 that arrived more than once.
    package func doubled() -> [Fault] { faults { $1 > 1 }.filter { $0.qos == 2 } }

    private func faults(_ isFault: (_ acknowledged: Bool, _ arrivals: UInt16) -> Bool) -> [Fault] {
        books.withLock { books in
            books.streams.enumerated().flatMap { index, stream -> [Fault] in
                guard stream.qos > 0 else { return [] }
                return stream.arrivals.indices.dropFirst().compactMap { number in
                    guard isFault(stream.acknowledged[number], stream.arrivals[number]) else { return nil }
                    return Fault(
                        direction: stream.direction, qos: stream.qos,
                        message: WireTap.Message(stream: index, number: number),
                        arrivals: Int(stream.arrivals[number]))
                }
            }
        }
    }

    /// What a person needs to find a fault: the first numbers lost or doubled, stream by stream.
    package func faults() -> [String] {
        books.withLock { books in
            books.streams.compactMap { stream in
                let numbers = stream.arrivals.indices.dropFirst()
                let lost = numbers.filter { stream.acknowledged[$0] && stream.arrivals[$0] == 0 }
                let doubled = numbers.filter { stream.arrivals[$0] > 1 }
                guard stream.qos > 0, !lost.isEmpty || (stream.qos == 2 && !doubled.isEmpty) else {
                    return nil
                }
                var line = "\(stream.name):"
                if !lost.isEmpty { line += " lost \(Array(lost.prefix(12)))" }
                if stream.qos == 2 && !doubled.isEmpty { line += " doubled \(Array(doubled.prefix(12)))" }
                return line
            }
        }
    }

    private static func counted(_ stream: Stream) -> Totals {
        var totals = stream.totals
        for number in stream.arrivals.indices.dropFirst() where stream.qos > 0 {
            let arrived = stream.arrivals[number] > 0
            if stream.acknowledged[number] && !arrived { totals.lost += 1 }
            if stream.refused[number] { continue }
            if !stream.acknowledged[number] { totals.unanswered += 1 }
            if !arrived { totals.underWay += 1 }
        }
        return totals
    }

    @discardableResult
    private func change<Result: Sendable>(_ stream: StreamID, _ body: (inout Stream) -> Result) -> Result {
        books.withLock { body(&$0.streams[stream.number]) }
    }
}

extension Ledger.Totals {
    package mutating func add(_ other: Self) {
        sent += other.sent
        acknowledged += other.acknowledged
        received += other.received
        lost += other.lost
        duplicated += other.duplicated
        outOfOrder += other.outOfOrder
        refused += other.refused
        unanswered += other.unanswered
        underWay += other.underWay
    }
}
