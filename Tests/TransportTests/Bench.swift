import Glibc
import MQTT
import NIOCore
import NIOPosix
import Testing

@testable import Transport

/// What a delegate was told, in order.
enum Told: Equatable {
    case opened(listener: Int)
    case received(Packet)
    case malformed(MalformedPacket)
    case closed
    case writability(Bool)
}

/// A delegate that writes down what it is told and answers as a test says; lives on the loop.
final class Recorder: TransportDelegate {
    /// Everything told, by connection in the order they were opened.
    var told: [ConnectionNumber: [Told]] = [:]
    var numbers: [ConnectionNumber] = []
    var troubles: [TransportTrouble] = []
    /// What was told beside each malformed packet.
    var versions: [ProtocolVersion?] = []
    var cycles = 0
    var answer: @Sendable (Bench.Loop, ConnectionNumber, Told) -> Void = { _, _, _ in }
    var transport: Transport
    private var isInside = false

    init(_ transport: Transport) { self.transport = transport }

    func opened(
        _ connection: ConnectionNumber, listener: Int, peer: SocketAddress?, certificate: PeerCertificate?
    ) {
        numbers.append(connection)
        tell(connection, .opened(listener: listener))
    }
    func received(_ connection: ConnectionNumber, _ packet: Packet) { tell(connection, .received(packet)) }
    func malformed(_ connection: ConnectionNumber, _ error: MalformedPacket, in version: ProtocolVersion?) {
        versions.append(version)
        tell(connection, .malformed(error))
    }
    func closed(_ connection: ConnectionNumber) { tell(connection, .closed) }
    func writability(_ connection: ConnectionNumber, _ isWritable: Bool) {
        tell(connection, .writability(isWritable))
    }
    func readCycleEnded() {
        cycles += 1
        transport.flush()
    }
    func trouble(_ trouble: TransportTrouble) { troubles.append(trouble) }

    private func tell(_ connection: ConnectionNumber, _ told: Told) {
        precondition(!isInside, "the delegate is told nothing while it is inside a call")
        self.told[connection, default: []].append(told)
        isInside = true
        answer(Bench.Loop(recorder: self), connection, told)
        isInside = false
    }
}

/// A transport on a loop of its own, and a test's way to look into it.
final class Bench {
    /// What a test may touch on the loop.
    struct Loop {
        let recorder: Recorder
        var transport: Transport { recorder.transport }
    }

    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let recorder: NIOLoopBoundBox<Recorder>
    /// In the order of the plan.
    let addresses: [SocketAddress]
    /// Of the first listener; 0 when that is no TCP listener.
    var port: Int { addresses[0].port ?? 0 }

    init(
        framing: Framing = .none, maximumPacketSize: Int = 1 << 20, connectionsMax: Int = 100,
        answer: @escaping @Sendable (Loop, ConnectionNumber, Told) -> Void = { _, _, _ in },
        tune: (inout TransportPlan) -> Void = { _ in }
    ) throws {
        var plan = TransportPlan(listeners: [
            ListenerPlan(
                index: 7, address: .tcp(host: "127.0.0.1", port: 0), framing: framing,
                maximumPacketSize: maximumPacketSize, connectionsMax: connectionsMax)
        ])
        tune(&plan)
        let loop = group.next()
        recorder = NIOLoopBoundBox.makeBoxSendingValue(
            Recorder(Transport(plan: plan, loop: loop)), eventLoop: loop)
        let recorder = recorder
        addresses = try loop.flatSubmit {
            recorder.value.answer = answer
            return recorder.value.transport.start(delegate: recorder.value)
        }.wait()
    }

    deinit {
        let recorder = recorder
        do {
            try group.next().flatSubmit { recorder.value.transport.stop() }.wait()
            try group.syncShutdownGracefully()
        } catch {
            Issue.record(error)
        }
    }

    /// Runs on the loop and flushes, as a host does.
    func onLoop<T: Sendable>(_ body: @escaping @Sendable (Loop) -> T) throws -> T {
        let recorder = recorder
        return try group.next().submit {
            defer { recorder.value.transport.flush() }
            return body(Loop(recorder: recorder.value))
        }.wait()
    }

    func stops() throws {
        let recorder = recorder
        try group.next().flatSubmit { recorder.value.transport.stop() }.wait()
    }

    /// What the connection opened as the `index`-th was told.
    func told(_ index: Int = 0) throws -> [Told] {
        try onLoop { loop in
            let recorder = loop.recorder
            return index < recorder.numbers.count ? recorder.told[recorder.numbers[index], default: []] : []
        }
    }

    func received(_ index: Int = 0) throws -> [Packet] {
        try told(index).compactMap { if case .received(let packet) = $0 { packet } else { nil } }
    }

    /// Waits for a condition that is bound to come, for ten seconds at most.
    func waits(_ comment: Comment? = nil, until condition: () throws -> Bool) throws {
        for _ in 0..<2000 {
            if try condition() { return }
            usleep(5000)
        }
        Issue.record(comment ?? "what was waited for did not come")
    }
}

/// A client of blocking system calls, which does exactly what a test tells it.
final class RawClient: Sendable {
    struct Refused: Error {}

    private let socket: Int32

    /// - Parameter receiveBuffer: of the kernel, in bytes; small for a client that is slow to read.
    init(port: Int, receiveBuffer: Int32? = nil) throws {
        socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var receiveBuffer {
            setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, socklen_t(MemoryLayout<Int32>.size))
        }
        var timeout = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if connected != 0 { throw Refused() }
    }

    /// - Parameter path: of a Unix socket.
    init(path: String) throws {
        socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var timeout = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if connected != 0 { throw Refused() }
    }

    deinit { close(socket) }

    func sends(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            try #require(count > 0)
            sent += count
        }
    }

    func sends(_ packets: [Packet], _ version: ProtocolVersion = .v5_0) throws {
        var bytes: [UInt8] = []
        for packet in packets { packet.encode(version: version, into: &bytes) }
        try sends(bytes)
    }

    /// Sends zeros until the server's side takes no more; returns how many it took.
    func sendsWithoutWaiting(atMost limit: Int) -> Int {
        let zeros = [UInt8](repeating: 0, count: 1 << 16)
        var sent = 0
        var idle = 0
        while sent < limit, idle < 20 {
            let count = send(socket, zeros, zeros.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            if count > 0 {
                sent += count
                idle = 0
            } else {
                idle += 1
                usleep(10_000)
            }
        }
        return sent
    }

    /// What one recv(2) brings; empty at the end of the stream, nil on an error (a reset, or ten seconds' silence).
    func receivesOnce(upTo limit: Int = 1 << 20) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: limit)
        let count = recv(socket, &bytes, bytes.count, 0)
        return count < 0 ? nil : Array(bytes[..<count])
    }

    /// Everything until the server ends the stream; nil when it was reset instead.
    func receivesToEnd() -> [UInt8]? {
        var all: [UInt8] = []
        while let bytes = receivesOnce() {
            if bytes.isEmpty { return all }
            all += bytes
        }
        return nil
    }

    /// Sends bytes and ends the connection at once, with RST.
    ///
    /// - Returns: whether that came to pass.
    func resets(after bytes: [UInt8]) -> Bool {
        guard send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { return false }
        var nobody = sockaddr()
        nobody.sa_family = sa_family_t(AF_UNSPEC)
        return connect(socket, &nobody, socklen_t(MemoryLayout<sockaddr>.size)) == 0
    }

    func halfCloses() { shutdown(socket, Int32(SHUT_WR)) }
}

extension Packet {
    static func hello(_ version: ProtocolVersion = .v5_0) -> Packet {
        .connect(Connect(version: version, clientIdentifier: "press-12"))
    }

    /// A PUBLISH whose payload is `number` in decimal, followed by `padding` spaces.
    static func numbered(_ number: Int, padding: Int = 0) -> Packet {
        .publish(
            Publish(
                message: ApplicationMessage(
                    topic: "t".utf8, payload: Array("\(number)".utf8) + Array(repeating: 0x20, count: padding)
                )))
    }

    func bytes(_ version: ProtocolVersion) -> [UInt8] {
        var bytes: [UInt8] = []
        encode(version: version, into: &bytes)
        return bytes
    }
}

func usleepMilliseconds(_ milliseconds: UInt32) { usleep(milliseconds * 1000) }
