import HeapModule
import MQTT

/// Where a promise waits for its position: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, CONNACK, and
/// QoS 2 messages on their way to QoS 0 receivers. Nothing that commits the gateway towards a peer leaves
/// before the Record behind it survives a power cut (rules A1-A7, A9, A10), or before everyone who was owed its
/// message has it (rules A1, E3); this file answers whether an acknowledged message can be lost.
///
/// Promises to one peer leave in the order they were made, so that acknowledgements keep the order of their
/// PUBLISH packets [MQTT5-4.6.0-2] (rule A12) even when a later one had nothing to wait for, or was elided first.
/// No peer waits for another's.
///
/// - Complexity: everything O(1), but that a peer which begins to wait costs O(log peers that wait)
struct CommitGate {
    /// The last position that survives a power cut.
    private(set) var durable = Position.zero
    /// Those parked, and free places; each line is linked through them.
    private var places: [Place] = []
    private var freePlace: Int?
    private var lines: [Line] = []
    private var freeLine: Int?
    private var lineOfPeer = Roster<Peer, Int>()
    /// When lines are looked at next: each once, no later than its first promise may leave.
    private var calls: Heap<Call> = []
    private var callOrdinal: UInt64 = 0
    /// The line whose promises are leaving.
    private var leaving: Int?

    struct Promise {
        let peer: Peer
        let packet: Packet
    }

    /// Names a parked promise until it leaves.
    struct Ticket: Equatable {
        fileprivate let place: Int
    }

    private struct Place {
        /// What it waits for; `.zero` once that need not be written.
        var position: Position
        var packet: Packet
        var line: Int
        /// Of the same line, or of the free places.
        var next: Int?
    }

    /// The promises to one peer.
    private struct Line {
        var peer: Peer
        var first: Int?
        var last: Int?
        var count = 0
        /// The key of its call, if it has one.
        var calledAt: Position?
        var nextFree: Int?
    }

    private struct Call: Comparable {
        let at: Position
        /// Breaks ties in the order of creation, so that the order is the same everywhere.
        let ordinal: UInt64
        let line: Int

        static func < (a: Self, b: Self) -> Bool { (a.at, a.ordinal) < (b.at, b.ordinal) }
        static func == (a: Self, b: Self) -> Bool { (a.at, a.ordinal) == (b.at, b.ordinal) }
    }

    init(durable: Position) { self.durable = durable }

    func parkedCount(for peer: Peer) -> Int { lineOfPeer[peer].map { lines[$0].count } ?? 0 }

    /// For the same peer as this one, itself included.
    func parkedCount(with ticket: Ticket) -> Int { lines[places[ticket.place].line].count }

    // MARK: Parking

    /// Whether a promise must wait: for its Record, or behind earlier promises to the same peer.
    ///
    /// - Parameter position: the Record it promises; one that is durable is not waited for.
    func mustPark(for peer: Peer, after position: Position) -> Bool {
        position > durable || parkedCount(for: peer) > 0
    }

    /// Parks `packet`, which must wait.
    mutating func park(_ packet: consuming Packet, to peer: Peer, after position: Position) -> Ticket {
        let line = lineOfPeer[peer] ?? openLine(for: peer)
        let place = takePlace(position, consume packet, line)
        if let last = lines[line].last { places[last].next = place } else { lines[line].first = place }
        lines[line].last = place
        lines[line].count += 1
        if lines[line].count == 1 { call(line, at: position) }
        return Ticket(place: place)
    }

    private mutating func openLine(for peer: Peer) -> Int {
        let line: Int
        if let free = freeLine {
            line = free
            freeLine = lines[free].nextFree
            lines[free] = Line(peer: peer)
        } else {
            line = lines.count
            lines.append(Line(peer: peer))
        }
        lineOfPeer[peer] = line
        return line
    }

    private mutating func takePlace(_ position: Position, _ packet: consuming Packet, _ line: Int) -> Int {
        guard let free = freePlace else {
            places.append(Place(position: position, packet: consume packet, line: line))
            return places.count - 1
        }
        freePlace = places[free].next
        places[free].position = position
        places[free].packet = consume packet
        places[free].line = line
        places[free].next = nil
        return free
    }

    private mutating func call(_ line: Int, at position: Position) {
        if let already = lines[line].calledAt, already <= position { return }
        lines[line].calledAt = position
        callOrdinal += 1
        calls.insert(Call(at: position, ordinal: callOrdinal, line: line))
    }

    // MARK: Releasing

    /// Advances what is durable. Only `release` lets the promises go.
    ///
    /// - Parameter position: the last Record a completed sync covers; moving backwards is ignored.
    mutating func advance(to position: Position) { durable = max(durable, position) }

    /// What the promise waits for will not be written, because everyone who was owed it has it: it waits only for
    /// earlier ones to the same peer. `release` lets it go.
    mutating func excuse(_ ticket: Ticket) {
        places[ticket.place].position = .zero
        let line = places[ticket.place].line
        // One line at a time: the caller releases at once.
        if lines[line].first == ticket.place { leaving = line }
    }

    /// The next promise that may leave; nil when all that is parked must still wait.
    mutating func release() -> Promise? {
        while true {
            if let line = leaving {
                if let promise = takeFirst(of: line) { return promise }
                leaving = nil
                rest(line)
            }
            guard let call = calls.min, call.at <= durable else { return nil }
            calls.removeMin()
            // One that was moved forward is met again in its old place.
            guard lines[call.line].calledAt == call.at else { continue }
            lines[call.line].calledAt = nil
            leaving = call.line
        }
    }

    private mutating func takeFirst(of line: Int) -> Promise? {
        guard let first = lines[line].first, places[first].position <= durable else { return nil }
        var packet = Packet.pingreq
        swap(&packet, &places[first].packet)
        lines[line].first = places[first].next
        if lines[line].first == nil { lines[line].last = nil }
        lines[line].count -= 1
        places[first].next = freePlace
        freePlace = first
        return Promise(peer: lines[line].peer, packet: packet)
    }

    /// What is left of a line waits on, or the line is given up.
    private mutating func rest(_ line: Int) {
        if let first = lines[line].first { return call(line, at: places[first].position) }
        guard lines[line].calledAt == nil, lineOfPeer[lines[line].peer] == line else { return }
        lineOfPeer[lines[line].peer] = nil
        lines[line].nextFree = freeLine
        freeLine = line
    }
}
