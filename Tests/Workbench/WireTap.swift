import Synchronization

/// Reads along on the line between gateway and cloud, and knows of every message of a `Ledger` who has taken it over
/// there: so that what the cloud loses after it acknowledged it is told from what the gateway loses.
///
/// It believes only what a message's receiver says on the wire: PUBACK, or PUBREC without an error.
package final class WireTap: Sendable {
    /// A message of the ledger.
    package struct Message: Hashable, Sendable {
        package let stream: Int
        package let number: Int

        package init(stream: Int, number: Int) {
            self.stream = stream
            self.number = number
        }
    }

    struct Sent {
        let message: Message
        let qos: UInt8
    }

    /// One connection.
    package struct Line {
        var towardsTarget = PacketFramer()
        var fromTarget = PacketFramer()
        var isVersion5 = false
        /// What was published and not answered, by Packet Identifier: towards the cloud, and from it.
        var up: [UInt16: Sent] = [:]
        var down: [UInt16: Sent] = [:]

        package init() {}

        /// The packets that end in these bytes, the next of a direction.
        mutating func take(_ bytes: some Collection<UInt8>, _ direction: CuttableLink.Direction) -> [[UInt8]]
        {
            switch direction {
            case .towardsTarget: towardsTarget.take(bytes)
            case .fromTarget: fromTarget.take(bytes)
            }
        }
    }

    private struct Books {
        var takenByCloud: Set<Message> = []
        var takenByGateway: [Message: Int] = [:]
        /// QoS 2 messages of which the gateway knows that the cloud has them: it sent PUBREL.
        var released: Set<Message> = []
        /// What the cloud has answered with PUBREC, by Packet Identifier.
        var recorded: [UInt16: Message] = [:]
        /// PUBLISH of a message whose PUBREL had been sent [MQTT5-4.3.3-6].
        var publishedAgain: Set<Message> = []
        /// What the cloud published at QoS 2, by Packet Identifier, and what of it it has sent PUBREL for.
        var publishedByCloud: [UInt16: Message] = [:]
        var releasedByCloud: Set<Message> = []
        /// PUBLISH of a message whose PUBREL it had sent.
        var publishedAgainByCloud: Set<Message> = []
        /// CONNACKs with success, and those with Session Present 0 but for the first.
        var connections = 0
        var sessionsLost = 0
        var trace: [String] = []
    }

    private static let traceLinesMax = 5000

    private let mark: Int
    private let books = Mutex(Books())

    package init(_ ledger: Ledger) { mark = ledger.mark }

    package func wasTakenByCloud(_ message: Message) -> Bool {
        books.withLock { $0.takenByCloud.contains(message) }
    }

    /// How often the gateway answered a PUBLISH of this message.
    package func timesTakenByGateway(_ message: Message) -> Int {
        books.withLock { $0.takenByGateway[message] ?? 0 }
    }

    /// QoS 2 messages that the gateway sent although it had said that the cloud has them.
    package var publishedAgain: Set<Message> { books.withLock { $0.publishedAgain } }
    /// QoS 2 messages that the cloud sent although it had sent their PUBREL [MQTT5-4.3.3-6], as mosquitto 2.0.11 does when
    /// the connection breaks twice before PUBCOMP: whoever has released them must take them for new ones.
    package var publishedAgainByCloud: Set<Message> { books.withLock { $0.publishedAgainByCloud } }
    /// CONNACKs with success and Session Present 0, but for the first.
    package var sessionsLost: Int { books.withLock { $0.sessionsLost } }

    /// What has passed, one line a packet, for a person who looks for a fault.
    package var trace: [String] { books.withLock { $0.trace } }

    /// Bytes that have passed on one connection.
    package func passed(
        _ bytes: some Collection<UInt8>, _ direction: CuttableLink.Direction, on line: inout Line
    ) {
        passed(line.take(bytes, direction), direction, on: &line)
    }

    /// Packets that have passed on one connection.
    func passed(_ packets: [[UInt8]], _ direction: CuttableLink.Direction, on line: inout Line) {
        for packet in packets {
            books.withLock { read(Packet(packet), direction, &line, &$0) }
        }
    }

    private func read(
        _ packet: Packet, _ direction: CuttableLink.Direction, _ line: inout Line, _ books: inout Books
    ) {
        let isUp = direction == .towardsTarget
        if books.trace.count < Self.traceLinesMax {
            books.trace.append("\(isUp ? "→" : "←") \(describe(packet, line))")
        }
        switch packet.type {
        case 1:
            // The Protocol Level follows the name [MQTT5-3.1.2.2]; bit 7 is a bridge's.
            let name = Int(packet.body.first ?? 0) << 8 | Int(packet.body.dropFirst().first ?? 0)
            line.isVersion5 = packet.body.dropFirst(2 + name).first.map { $0 & 0x7F == 5 } ?? false
        case 2:
            guard packet.body.count >= 2, packet.body[packet.body.startIndex + 1] == 0 else { return }
            if packet.body.first != 1 {
                if books.connections > 0 { books.sessionsLost += 1 }
                books.recorded = [:]
            }
            books.connections += 1
        case 3:
            guard let (id, payload) = packet.publish(isVersion5: line.isVersion5),
                let message = message(in: payload)
            else { return }
            if isUp, packet.qos == 2, books.released.contains(message) {
                books.publishedAgain.insert(message)
            }
            if !isUp, packet.qos == 2 {
                if books.releasedByCloud.contains(message) { books.publishedAgainByCloud.insert(message) }
                books.publishedByCloud[id] = message
            }
            let sent = Sent(message: message, qos: packet.qos)
            if isUp { line.up[id] = sent } else { line.down[id] = sent }
        case 4, 5:
            guard let id = packet.identifier, !packet.isRefusal else { return }
            // An answer goes against the message's direction.
            if isUp {
                if let sent = line.down.removeValue(forKey: id) {
                    books.takenByGateway[sent.message, default: 0] += 1
                }
            } else if let sent = line.up.removeValue(forKey: id) {
                books.takenByCloud.insert(sent.message)
                if packet.type == 5 { books.recorded[id] = sent.message }
            }
        case 6:
            guard let id = packet.identifier else { return }
            if isUp {
                if let message = books.recorded.removeValue(forKey: id) { books.released.insert(message) }
            } else if let message = books.publishedByCloud[id] {
                books.releasedByCloud.insert(message)
            }
        default:
            break
        }
    }

    private func describe(_ packet: Packet, _ line: Line) -> String {
        let names = [
            1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP",
            8: "SUBSCRIBE", 9: "SUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT",
        ]
        let name = names[Int(packet.type)] ?? "type \(packet.type)"
        switch packet.type {
        case 2: return "\(name) session present \(packet.body.first ?? 0)"
        case 3:
            guard let (id, payload) = packet.publish(isVersion5: line.isVersion5) else {
                return "\(name) QoS 0"
            }
            let what = message(in: payload).map { "\($0.stream)/\($0.number)" } ?? "a stranger"
            return "\(name) \(id) QoS \(packet.qos)\(packet.isDuplicate ? " DUP" : "") \(what)"
        case 4...7: return "\(name) \(packet.identifier ?? 0)\(packet.isRefusal ? " refused" : "")"
        default: return name
        }
    }

    /// What the clients of the workbench write at the beginning of a payload: mark, stream and number.
    private func message(in payload: ArraySlice<UInt8>) -> Message? {
        let words = payload.prefix(64).split(separator: UInt8(ascii: " ")).prefix(3).map {
            Int(String(decoding: $0, as: UTF8.self))
        }
        guard words.count == 3, words[0] == mark, let stream = words[1], let number = words[2] else {
            return nil
        }
        return Message(stream: stream, number: number)
    }
}

/// As much of a Control Packet as the tap looks at.
private struct Packet {
    let type: UInt8
    let qos: UInt8
    let isDuplicate: Bool
    let body: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) {
        type = bytes[0] >> 4
        qos = bytes[0] >> 1 & 3
        isDuplicate = bytes[0] & 8 != 0
        let lengthBytes = bytes.dropFirst().prefix { $0 & 0x80 != 0 }.count + 1
        body = bytes.dropFirst(1 + lengthBytes)
    }

    /// Of an acknowledgement.
    var identifier: UInt16? { Self.uint16(body) }

    /// Whether an acknowledgement bears a Reason Code of 0x80 or above.
    var isRefusal: Bool { body.count > 2 && body[body.startIndex + 2] >= 0x80 }

    /// Packet Identifier and payload of a PUBLISH at QoS 1 or 2.
    func publish(isVersion5: Bool) -> (UInt16, ArraySlice<UInt8>)? {
        guard qos > 0, let topicLength = Self.uint16(body) else { return nil }
        var rest = body.dropFirst(2 + Int(topicLength))
        guard let id = Self.uint16(rest) else { return nil }
        rest = rest.dropFirst(2)
        if isVersion5 {
            var (length, place) = (0, 0)
            while let byte = rest.popFirst() {
                length |= Int(byte & 0x7F) << (7 * place)
                place += 1
                if byte & 0x80 == 0 { break }
            }
            rest = rest.dropFirst(length)
        }
        return (id, rest)
    }

    private static func uint16(_ bytes: ArraySlice<UInt8>) -> UInt16? {
        guard bytes.count >= 2 else { return nil }
        return UInt16(bytes[bytes.startIndex]) << 8 | UInt16(bytes[bytes.startIndex + 1])
    }
}
