import MQTT

/// The n-th message of a stream, from 1. A stream is what one peer publishes to one topic at one QoS.
struct Message: Hashable {
    let stream: Int
    let number: Int
}

/// What happened to a peer, as far as it must remember it or somebody is owed something for it.
enum Happening {
    /// CONNACK with success.
    case connected(sessionPresent: Bool)
    case subscribed
    case published(Message, PacketIdentifier)
    /// PUBACK, or PUBREC without an error: from now on the message is the gateway's.
    case taken(PacketIdentifier)
    case completed(PacketIdentifier)
    /// Handed to the application. At QoS 2 that is with the first PUBLISH.
    case arrived(Message, QoS, PacketIdentifier?)
    case retained(Message)
    case released(PacketIdentifier)
}

/// An entry of a peer's diary.
struct Entry {
    /// Its place among the entries of all peers.
    let order: Int
    /// How many events its disk had recorded then, at most. What happened before the power failed after event n is what
    /// has a stamp of n at most.
    let stamp: Int
    let happening: Happening
}

/// Everything a peer knows. It changes only by `apply`, so that what a peer knew at the moment of a cut is what its diary
/// says until then.
struct Memory {
    struct Flight {
        let id: PacketIdentifier
        let message: Message
        var isTaken = false
    }

    private(set) var hasSession = false
    /// Since when everything published is owed to it; the order of its SUBACK.
    private(set) var subscribedSince: Int?
    /// Times a Session was gone that it had been told of.
    private(set) var sessionsLost = 0

    /// Published and not settled, in the order of publishing.
    private(set) var flights: [Flight] = []
    private(set) var lastIdentifier: UInt16 = 0
    /// When each message was published for the first time.
    private(set) var published: [Message: Int] = [:]
    private(set) var taken: Set<Message> = []

    /// QoS 2 messages it has and which were not released, by Packet Identifier.
    private(set) var unreleased: Set<PacketIdentifier> = []
    private(set) var arrivals: [Message: Int] = [:]
    private(set) var highest: [Int: Int] = [:]
    /// Messages that came for the first time after a later one of the same stream.
    private(set) var outOfOrder: [Message] = []
    /// The newest that was said to be retained, by stream.
    private(set) var retained: [Int: Int] = [:]

    /// - Parameter isOwedEverything: as if it had subscribed before anything happened.
    init(isOwedEverything: Bool) { subscribedSince = isOwedEverything ? -1 : nil }

    mutating func apply(_ entry: Entry) {
        switch entry.happening {
        case .connected(let sessionPresent):
            if !sessionPresent {
                if hasSession {
                    sessionsLost += 1
                    subscribedSince = nil
                }
                unreleased = []
            }
            hasSession = true
        case .subscribed:
            subscribedSince = subscribedSince ?? entry.order
        case .published(let message, let id):
            flights.append(Flight(id: id, message: message))
            lastIdentifier = id.rawValue
            published[message] = entry.order
        case .taken(let id):
            guard let index = flights.firstIndex(where: { $0.id == id }) else { return }
            taken.insert(flights[index].message)
            flights[index].isTaken = true
        case .completed(let id):
            flights.removeAll { $0.id == id }
        case .arrived(let message, let qos, let id):
            if qos == .exactlyOnce, let id { unreleased.insert(id) }
            arrivals[message, default: 0] += 1
            if arrivals[message] == 1 {
                if message.number < highest[message.stream] ?? 0 { outOfOrder.append(message) }
                highest[message.stream] = max(highest[message.stream] ?? 0, message.number)
            }
        case .retained(let message):
            retained[message.stream] = max(retained[message.stream] ?? 0, message.number)
        case .released(let id):
            unreleased.remove(id)
        }
    }

    /// A Packet Identifier that no flight has; nil with 65 535 flights.
    func freeIdentifier() -> PacketIdentifier? {
        var raw = lastIdentifier
        for _ in 0..<UInt16.max {
            raw = raw == .max ? 1 : raw + 1
            if let id = PacketIdentifier(rawValue: raw), !flights.contains(where: { $0.id == id }) {
                return id
            }
        }
        return nil
    }
}

/// Numbers the entries of all diaries, and stamps them.
final class Chronicle {
    /// Of the latest entry.
    private(set) var order: Int
    /// The disk that is recorded; without one nothing will be cut.
    private let disk: RecordedDisk?

    init(recording disk: RecordedDisk?, after order: Int = 0) {
        self.disk = disk
        self.order = order
    }

    func entry(_ happening: Happening) -> Entry {
        order += 1
        return Entry(order: order, stamp: disk?.eventCount ?? .max, happening: happening)
    }
}
