import Workbench

/// What a world after a cut owed, and what of it came.
struct Verdict {
    /// Messages acknowledged before the cut.
    var acknowledged = 0
    /// Pairs of a message acknowledged before the cut and a subscriber to whom it was owed.
    var owed = 0
    /// What is wrong, in words; each begins with its kind.
    var faults: [Fault] = []

    struct Fault: CustomStringConvertible {
        enum Kind: String, CaseIterable {
            case lost, doubled
            case outOfOrder = "out of order"
            case stranger
            case sessionLost = "session lost"
            case retainedLost = "retained lost"
            case restless = "not settled"
            case unexpected
            case startRefused = "did not start"
        }
        let kind: Kind
        let text: String
        var description: String { "\(kind.rawValue): \(text)" }
    }

    init() {}

    /// - Parameter before: the peers as they were recorded, of which this world's peers are the continuation.
    init(_ crowd: Crowd, _ cast: Cast, before: [Peer], boundary: Int) {
        let publishers = crowd.peers.filter { !$0.role.streams.isEmpty }
        var publishedAt: [Message: Int] = [:]
        var retainedAtLeast: [Int: Int] = [:]
        var takenBefore: Set<Message> = []
        for peer in before where !peer.role.streams.isEmpty {
            var memory = Memory(isOwedEverything: false)
            for entry in peer.diary.prefix(while: { $0.stamp <= boundary }) { memory.apply(entry) }
            takenBefore.formUnion(memory.taken)
        }
        acknowledged = takenBefore.count
        for message in takenBefore where cast.streams[message.stream].isRetained {
            retainedAtLeast[message.stream] = max(retainedAtLeast[message.stream] ?? 0, message.number)
        }
        for publisher in publishers { publishedAt.merge(publisher.memory.published) { old, _ in old } }
        for peer in crowd.peers { judge(peer, cast, publishedAt, takenBefore) }
        for peer in crowd.peers where !peer.role.isAtCloud {
            guard case .afterwards = peer.role.presence else { continue }
            for (stream, number) in retainedAtLeast.sorted(by: { $0.key < $1.key })
            where cast.qos(of: stream, for: peer.role) != nil && peer.memory.retained[stream] ?? 0 < number {
                let found = peer.memory.retained[stream].map { "number \($0)" } ?? "nothing"
                add(.retainedLost, "\(cast.streams[stream].topic): \(found) instead of \(number) or later")
            }
        }
    }

    mutating func add(_ kind: Fault.Kind, _ text: String) { faults.append(Fault(kind: kind, text: text)) }

    private mutating func judge(
        _ peer: Peer, _ cast: Cast, _ publishedAt: [Message: Int], _ takenBefore: Set<Message>
    ) {
        let name = peer.role.name
        let memory = peer.memory
        if memory.sessionsLost > 0 { add(.sessionLost, "that of \(name)") }
        for complaint in peer.complaints { add(.unexpected, complaint) }
        for message in memory.outOfOrder { add(.outOfOrder, "\(name) got \(cast.name(message)) too late") }
        for message in memory.arrivals.keys.sorted(by: Message.precedes) where publishedAt[message] == nil {
            add(.stranger, "\(name) got \(cast.name(message)), which nobody had published")
        }
        for (message, order) in publishedAt.sorted(by: { Message.precedes($0.key, $1.key) }) {
            guard let qos = cast.qos(of: message.stream, for: peer.role) else { continue }
            let arrivals = memory.arrivals[message] ?? 0
            if let since = memory.subscribedSince, since < order {
                let wasTaken = takenBefore.contains(message)
                owed += wasTaken ? 1 : 0
                if arrivals == 0 {
                    let when = wasTaken ? "acknowledged before the cut" : "acknowledged after the cut"
                    add(.lost, "\(name) did not get \(cast.name(message)), \(when)")
                }
            }
            if arrivals > 1, qos == .exactlyOnce {
                add(.doubled, "\(name) got \(cast.name(message)) \(arrivals) times")
            }
        }
    }
}

extension Message {
    static func precedes(_ a: Message, _ b: Message) -> Bool { (a.stream, a.number) < (b.stream, b.number) }
}

extension Cast {
    func name(_ message: Message) -> String {
        "\(streams[message.stream].topic) (QoS \(streams[message.stream].qos.rawValue)) number \(message.number)"
    }
}
