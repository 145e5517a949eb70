import Foundation
import MQTT
import Workbench

/// A client that follows MQTT's rules, writes a diary, and can be set back to any moment of it.
final class Peer {
    let role: Cast.Role
    private(set) var memory: Memory
    private(set) var diary: [Entry] = []
    /// What it did not expect of the gateway, in words.
    private(set) var complaints: [String] = []

    private let cast: Cast
    private let chronicle: Chronicle
    private let port: UInt16
    private(set) var socket: Int32 = -1
    private var decoder: PacketDecoder
    private var outgoing: [UInt8] = []
    private(set) var isConnected = false
    /// When publishing began, in seconds, and how many messages of each of its streams were sent since.
    private var publishingSince: Double?
    private var sentSince = 0

    init(_ role: Cast.Role, _ cast: Cast, _ chronicle: Chronicle, port: UInt16) {
        self.role = role
        self.cast = cast
        self.chronicle = chronicle
        self.port = port
        memory = Memory(isOwedEverything: role.isAtCloud)
        decoder = PacketDecoder(receiver: .client, version: role.version, maximumPacketSize: 1 << 28)
    }

    /// One that knows what `other` knew when the power failed after the first `boundary` events.
    init(_ other: Peer, at boundary: Int, _ chronicle: Chronicle, port: UInt16) {
        role = other.role
        cast = other.cast
        self.chronicle = chronicle
        self.port = port
        memory = Memory(isOwedEverything: role.isAtCloud)
        decoder = PacketDecoder(receiver: .client, version: role.version, maximumPacketSize: 1 << 28)
        for entry in other.diary.prefix(while: { $0.stamp <= boundary }) { memory.apply(entry) }
    }

    deinit { if socket >= 0 { close(socket) } }

    private func note(_ happening: Happening) {
        let entry = chronicle.entry(happening)
        memory.apply(entry)
        diary.append(entry)
    }

    var isSubscribed: Bool { role.subscriptions.isEmpty || (isConnected && isSubscriptionDone) }
    private var isSubscriptionDone = false

    // MARK: - The connection

    func connect() {
        guard socket < 0 else { return }
        let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard Loopback.connect(descriptor, port: port) == 0 else {
            close(descriptor)
            return
        }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        socket = descriptor
        decoder = PacketDecoder(receiver: .client, version: role.version, maximumPacketSize: 1 << 28)
        outgoing = []
        let version = role.version
        send(
            .connect(
                Connect(
                    version: version, clientIdentifier: role.name, cleanStart: false,
                    sessionExpirySeconds: version == .v5_0 ? 86_400 : nil)))
    }

    /// - Parameter gracefully: with DISCONNECT.
    func leave(gracefully: Bool) {
        guard socket >= 0 else { return }
        if gracefully, isConnected {
            send(.disconnect(Disconnect()))
            write()
        }
        lost()
    }

    private func lost() {
        close(socket)
        socket = -1
        isConnected = false
        isSubscriptionDone = false
        publishingSince = nil
    }

    private func send(_ packet: Packet) { packet.encode(version: role.version, into: &outgoing) }

    var wantsToWrite: Bool { !outgoing.isEmpty }

    func write() {
        while socket >= 0, !outgoing.isEmpty {
            let count = outgoing.withUnsafeBytes {
                Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else {
                if errno != EAGAIN { lost() }
                return
            }
            outgoing.removeFirst(count)
        }
    }

    func read() {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while socket >= 0 {
            let count = recv(socket, &buffer, buffer.count, 0)
            guard count > 0 else {
                if count == 0 || errno != EAGAIN { lost() }
                return
            }
            buffer.withUnsafeBytes { decoder.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            do {
                while socket >= 0, let packet = try decoder.next() { handle(packet) }
            } catch {
                complaints.append("\(role.name) received what is no packet: \(error)")
                lost()
            }
        }
    }

    // MARK: - Packets

    private func handle(_ packet: Packet) {
        switch packet {
        case .connack(let connack): connected(connack)
        case .suback(let suback):
            if suback.reasons.contains(where: \.isError) { complaints.append("\(role.name): \(suback)") }
            isSubscriptionDone = true
            note(.subscribed)
        case .publish(let publish): arrived(publish)
        case .puback(let answer):
            if answer.reason.isError { complaints.append("\(role.name): PUBACK \(answer.reason)") }
            note(.taken(answer.id))
            note(.completed(answer.id))
        case .pubrec(let answer):
            if answer.reason.isError { complaints.append("\(role.name): PUBREC \(answer.reason)") }
            note(.taken(answer.id))
            send(.pubrel(Acknowledgement(answer.id)))
        case .pubcomp(let answer): note(.completed(answer.id))
        case .pubrel(let answer):
            note(.released(answer.id))
            send(.pubcomp(Acknowledgement(answer.id)))
        case .disconnect(let disconnect):
            complaints.append("\(role.name): DISCONNECT \(disconnect.reason)")
            lost()
        case .connect, .subscribe, .unsubscribe, .unsuback, .pingreq, .pingresp, .auth:
            break
        }
    }

    private func connected(_ connack: Connack) {
        guard !connack.reason.isError else {
            complaints.append("\(role.name): CONNACK \(connack.reason)")
            lost()
            return
        }
        note(.connected(sessionPresent: connack.sessionPresent))
        isConnected = true
        // Everything that is not settled goes again, in its order [MQTT5-4.4.0-1].
        for flight in memory.flights {
            if flight.isTaken {
                send(.pubrel(Acknowledgement(flight.id)))
            } else {
                sendMessage(flight.message, flight.id, isRepeated: true)
            }
        }
        isSubscriptionDone = connack.sessionPresent && memory.subscribedSince != nil
        guard !isSubscriptionDone, !role.subscriptions.isEmpty, let id = memory.freeIdentifier() else {
            return
        }
        let requests = role.subscriptions.compactMap { filter, qos in
            TopicFilter(filter).map { SubscriptionRequest(filter: $0, maximumQoS: qos) }
        }
        send(.subscribe(Subscribe(id: id, requests: requests)))
    }

    private func arrived(_ publish: Publish) {
        if publish.qos == .exactlyOnce, let id = publish.id, memory.unreleased.contains(id) {
            send(.pubrec(Acknowledgement(id)))
            return
        }
        let words = publish.message.payload.split(separator: UInt8(ascii: " "), maxSplits: 2)
        if words.count == 3, let stream = Int(String(decoding: words[0], as: UTF8.self)),
            let number = Int(String(decoding: words[1], as: UTF8.self))
        {
            let message = Message(stream: stream, number: number)
            // What is retained comes besides what is owed, and is not counted.
            note(publish.retain ? .retained(message) : .arrived(message, publish.qos, publish.id))
        } else {
            complaints.append("\(role.name) received what nobody sent, to \(publish.message.topic)")
        }
        guard let id = publish.id else { return }
        send(publish.qos == .exactlyOnce ? .pubrec(Acknowledgement(id)) : .puback(Acknowledgement(id)))
    }

    // MARK: - Publishing

    /// Publishes what is due at a steady rate.
    func publishDue(at now: Double, _ random: inout SplitMix64) {
        guard isConnected, !role.streams.isEmpty else { return }
        if publishingSince == nil { (publishingSince, sentSince) = (now, 0) }
        let due = Int((now - (publishingSince ?? now)) * role.perSecond)
        while sentSince < due, memory.flights.count + role.streams.count <= role.window {
            publishOneOfEach(&random)
            sentSince += 1
        }
    }

    /// The next message of each of its streams.
    func publishOneOfEach(_ random: inout SplitMix64) {
        for stream in role.streams {
            guard let id = memory.freeIdentifier() else { return }
            let message = Message(stream: stream, number: lastNumber(of: stream) + 1)
            numbers[stream] = message.number
            // In the diary before it is on the line: what the gateway writes because of it comes after its stamp.
            note(.published(message, id))
            sendMessage(message, id, isRepeated: false)
        }
    }

    private var numbers: [Int: Int] = [:]

    /// The number of the last message of one of its streams; 0 before the first.
    func lastNumber(of stream: Int) -> Int {
        if let number = numbers[stream] { return number }
        let number = memory.published.keys.lazy.filter { $0.stream == stream }.map(\.number).max() ?? 0
        numbers[stream] = number
        return number
    }

    private func sendMessage(_ message: Message, _ id: PacketIdentifier, isRepeated: Bool) {
        let stream = cast.streams[message.stream]
        var payload = Array("\(message.stream) \(message.number) .".utf8)
        // The same each time.
        var random = SplitMix64(seed: UInt64(message.stream) << 32 | UInt64(message.number))
        let count = Int.random(in: stream.payload, using: &random)
        while payload.count < count { payload.append(UInt8(ascii: ".")) }
        let body = ApplicationMessage(topic: Array(stream.topic.utf8), payload: payload)
        send(
            .publish(
                Publish(
                    message: body, qos: stream.qos, id: id, retain: stream.isRetained, duplicate: isRepeated))
        )
    }
}
