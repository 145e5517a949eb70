import GatewayCore
import Glibc
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import Uplink

@Suite("A connection to the cloud that is reset before it is written to", .serialized)
struct ResetTests {
    @Test(
        "what the cloud had sent is delivered, then the end, once, and nothing in the middle of the write that fails",
        .timeLimit(.minutes(10)))
    func resetBeforeAWrite() async throws {
        let cloud = try RawCloud()
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let world = try await loop.submit {
            NIOLoopBound(World(plan: cloud.plan, eventLoop: loop), eventLoop: loop)
        }.get()
        try await loop.submit { world.value.link.perform(.open(cleanStart: false)) }.get()
        try cloud.greets()
        while try await loop.submit({ world.value.events.isEmpty }).get() { usleep(1000) }

        let (isReset, heardMeanwhile) = try await loop.submit {
            // On the loop, so that it reads nothing before it writes.
            let isReset = cloud.resets(after: [.publish(Publish(message: Self.message("in")))])
            let before = world.value.events.count
            world.value.link.perform(.send(.publish(Publish(message: Self.message("out")))))
            world.value.link.flush()
            return (isReset, world.value.events.count > before)
        }.get()
        #expect(isReset)
        #expect(!heardMeanwhile)
        while try await loop.submit({ world.value.events.last != "disconnected" }).get() { usleep(1000) }
        let (events, losses) = try await loop.submit { () -> ([String], Int) in
            world.value.link.stop()
            return (world.value.events, world.value.losses)
        }.get()
        #expect(events == ["connected", "in", "disconnected"])
        #expect(losses == 1, "a connection is lost once")
    }

    private static func message(_ topic: String) -> ApplicationMessage {
        ApplicationMessage(topic: topic.utf8, payload: "x".utf8)
    }

    /// A link, with what it says written down; lives on the loop.
    private final class World {
        private(set) var events: [String] = []
        private(set) var losses = 0
        private(set) lazy var link = UplinkLink(
            plan: plan, index: UplinkIndex(0), eventLoop: eventLoop,
            deliver: { [unowned self] _, event in
                switch event {
                case .connected: events.append("connected")
                case .disconnected: events.append("disconnected")
                case .received(.publish(let publish)):
                    events.append(String(decoding: publish.message.topic, as: UTF8.self))
                case .received, .receivedTooLarge, .writability: break
                }
            },
            log: { [unowned self] notice in if case .lost = notice { losses += 1 } })
        private let plan: UplinkPlan
        private let eventLoop: any EventLoop

        init(plan: UplinkPlan, eventLoop: any EventLoop) {
            self.plan = plan
            self.eventLoop = eventLoop
        }
    }
}

/// A cloud of blocking system calls, for one connection.
private final class RawCloud: Sendable {
    struct Failed: Error {}

    private let listener: Int32
    private let accepted = Mutex<Int32>(-1)
    let plan: UplinkPlan

    init() throws {
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        let isListening = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, size) == 0 && listen(listener, 1) == 0
                    && getsockname(listener, $0, &size) == 0
            }
        }
        guard isListening else { throw Failed() }
        plan = UplinkPlan(
            name: "cloud",
            addresses: [UplinkAddress(host: "127.0.0.1", port: Int(UInt16(bigEndian: address.sin_port)))],
            clientIdentifier: "gw", version: .v3_1_1, backoffMinMilliseconds: 60_000,
            backoffMaxMilliseconds: 60_000)
    }

    deinit {
        close(listener)
        accepted.withLock { if $0 >= 0 { _ = close($0) } }
    }

    /// Accepts the connection and answers its CONNECT.
    func greets() throws {
        let socket = accept(listener, nil, nil)
        guard socket >= 0 else { throw Failed() }
        accepted.withLock { $0 = socket }
        var bytes = [UInt8](repeating: 0, count: 1024)
        guard recv(socket, &bytes, bytes.count, 0) > 0,
            send(socket, [0x20, 2, 0, 0] as [UInt8], 4, Int32(MSG_NOSIGNAL)) == 4
        else { throw Failed() }
    }

    /// Sends packets and ends the connection at once, with RST.
    ///
    /// - Returns: whether that came to pass.
    func resets(after packets: [Packet]) -> Bool {
        var bytes: [UInt8] = []
        for packet in packets { packet.encode(version: .v3_1_1, into: &bytes) }
        return accepted.withLock { socket in
            guard send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { return false }
            var nobody = sockaddr()
            nobody.sa_family = sa_family_t(AF_UNSPEC)
            return connect(socket, &nobody, socklen_t(MemoryLayout<sockaddr>.size)) == 0
        }
    }
}
