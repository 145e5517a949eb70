import Foundation
import MQTT
import Synchronization
import Workbench

/// A client that sends whatever bytes a test wants, well-formed or not, and reads what comes back packet by
/// packet.
final class Caller {
    let version: ProtocolVersion
    /// Of this caller alone; tests also begin their topics with it.
    let name: String
    /// Whether Reason Strings are shown. They are for people: what they say is no matter of the protocol.
    var showsExplanations = false
    private let socket: Int32
    private var decoder: PacketDecoder

    private static let count = Atomic<Int>(0)

    /// A name no other caller has.
    static func newName() -> String {
        "caller\(count.wrappingAdd(1, ordering: .relaxed).newValue)"
    }

    /// Opens a connection and sends nothing.
    ///
    /// - Parameter version: in which the gateway is expected to answer.
    init(_ version: ProtocolVersion, name: String = Caller.newName()) throws {
        self.version = version
        self.name = name
        decoder = PacketDecoder(receiver: .client, version: version, maximumPacketSize: 1 << 28)
        socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var patience = timeval(tv_sec: Self.patienceSeconds, tv_usec: 0)
        setsockopt(
            socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        guard Loopback.connect(socket, port: try Server.port()) == 0 else {
            throw WorkbenchError("cannot connect: errno \(errno)")
        }
    }

    deinit { close(socket) }

    /// Waiting longer than this for anything is an error.
    private static let patienceSeconds = 20

    /// Connects with a CONNECT that is accepted, and reads its CONNACK.
    static func connected(
        _ version: ProtocolVersion = .v5_0, name: String = Caller.newName(),
        _ change: (inout Connect) -> Void = { _ in }
    ) throws -> Caller {
        try greeted(version, name: name, change).caller
    }

    /// The same, with what CONNACK said.
    static func greeted(
        _ version: ProtocolVersion = .v5_0, name: String = Caller.newName(),
        _ change: (inout Connect) -> Void = { _ in }
    ) throws -> (caller: Caller, connack: Connack) {
        let caller = try Caller(version, name: name)
        var connect = Connect(version: version, clientIdentifier: name)
        change(&connect)
        caller.send(.connect(connect))
        guard case .connack(let connack)? = try caller.next(), connack.reason == .success else {
            throw WorkbenchError("CONNECT was not accepted")
        }
        return (caller, connack)
    }

    // MARK: Talking

    /// Bytes as they are. What a gateway that has closed no longer takes is lost without a word.
    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes {
                Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { return }
            rest = rest.dropFirst(sent)
        }
    }

    func send(_ packets: Packet...) { send(packets.flatMap { $0.bytes(version) }) }

    /// The next packet; nil when the gateway has closed the connection.
    func next() throws -> Packet? {
        while true {
            if let packet = try decoder.next() {
                return showsExplanations ? packet : packet.withoutExplanation
            }
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let count = recv(socket, &buffer, buffer.count, 0)
            if count == 0 { return nil }
            guard count > 0 else { throw WorkbenchError("\(name) hears nothing: errno \(errno)") }
            buffer.withUnsafeBytes { decoder.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        }
    }

    /// That many packets, or fewer when the gateway closes before.
    func next(_ count: Int) throws -> [Packet] {
        var packets: [Packet] = []
        while packets.count < count, let packet = try next() { packets.append(packet) }
        return packets
    }

    /// Everything up to the end of the connection, which the gateway is expected to make.
    func untilClosed() throws -> [Packet] { try next(.max) }

    /// Everything the gateway had to say so far: what came before its answer to a PINGREQ.
    func heard() throws -> [Packet] {
        guard case .open(let packets) = try response() else {
            throw WorkbenchError("\(name) was disconnected")
        }
        return packets
    }

    /// What the gateway does about `bytes`.
    func response(to bytes: [UInt8] = []) throws -> Response {
        send(bytes + Packet.pingreq.bytes(version))
        var packets: [Packet] = []
        while let packet = try next() {
            if packet == .pingresp { return .open(packets) }
            packets.append(packet)
        }
        return .closed(packets)
    }

    /// Subscribes, and reads SUBACK.
    func subscribe(
        _ filter: String, _ qos: QoS = .exactlyOnce, identifier: UInt32? = nil
    ) throws {
        send(.subscribe(1000, [(filter, qos)], identifier: identifier))
        guard case .suback? = try next() else { throw WorkbenchError("no SUBACK for \(filter)") }
    }

    /// Publishes, and sees the handshake of its QoS through. The connection carries nothing else meanwhile.
    func publish(_ publish: Publish) throws {
        send(.publish(publish))
        switch publish.qos {
        case .atMostOnce: _ = try heard()
        case .atLeastOnce: _ = try next()
        case .exactlyOnce:
            _ = try next()
            if let id = publish.id { send(.pubrel(Acknowledgement(id))) }
            _ = try next()
        }
    }

    /// Says goodbye, and returns once the gateway has closed.
    func leave(_ disconnect: Disconnect = Disconnect()) throws {
        send(.disconnect(disconnect))
        _ = try untilClosed()
    }

    /// The connection breaks.
    func vanish() { shutdown(socket, Int32(SHUT_RDWR)) }

    /// No more will be sent.
    func stopSending() { shutdown(socket, Int32(SHUT_WR)) }
}

/// What the gateway does about something: it goes on, or it closes the connection, having sent some packets.
enum Response: Equatable {
    case open([Packet])
    case closed([Packet])

    /// How a Malformed Packet or Protocol Error is answered on a connection that is established: a reason in
    /// MQTT 5, nothing before.
    static func refused(_ reason: ReasonCode, _ version: ProtocolVersion) -> Response {
        .closed(version == .v5_0 ? [.disconnect(Disconnect(reason))] : [])
    }
}

/// The gateway all callers talk to.
final class Server: Sendable {
    /// What the tests rely on; see `settings`.
    static let packetBytesMax = 64 << 10
    static let inflightMax = 10
    static let connectTimeoutSeconds = 2.0

    private static let settings = [
        "limits: { packet-size: 64 KiB, inflight: 10, connect-timeout: 2s }"
    ]

    private let gateway: Mutex<Gateway>
    private let place: Workplace
    private let port: UInt16

    private static let shared = Result<Server, any Error>(catching: { try Server() })

    /// Where it listens; the first to ask starts it.
    static func port() throws -> UInt16 { try shared.get().port }

    private init() throws {
        place = try Workplace("tidegate-conversations")
        // Beside the configuration file, where the gateway looks for them.
        for (i, profile) in DeviceProfiles.all.enumerated() {
            _ = try place.write(profile.yaml(order: i + 1), to: "device-profiles/\(profile.name).yaml")
        }
        let gateway = try Gateway(
            Gateway.executableOfThisBuild, in: place, settings: Self.settings)
        try gateway.start()
        port = gateway.port
        self.gateway = Mutex(gateway)
        atexit { Server.end() }
    }

    private static func end() {
        guard case .success(let server) = shared else { return }
        server.gateway.withLock { $0.kill() }
        server.place.remove()
    }
}
