import Foundation
import MQTT
import NIOCore
import Testing
import Workbench

@testable import Transport

@Suite("Transport: several listeners, Unix sockets", .serialized)
struct ListenerTests {
    /// A directory of its own, with a short path: a socket's has little room.
    private final class Directory {
        let path = "/tmp/tg-\(UInt32.random(in: 0...UInt32.max))"
        init() throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        }
        deinit {
            do { try FileManager.default.removeItem(atPath: path) } catch { Issue.record(error) }
        }
        var socket: String { path + "/mqtt.sock" }
        func mode(_ file: String) throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
        }
    }

    private func bench(_ path: String, mode: UInt32 = 0o660, framing: Framing = .none) throws -> Bench {
        try Bench(framing: framing, tune: { $0.listeners[0].address = .unix(path: path, mode: mode) })
    }

    @Test(
        "a Unix socket carries packets, has the mode asked for, and is gone after the end",
        arguments: [0o660, 0o600, 0o666] as [UInt32])
    func unixSocket(mode: UInt32) throws {
        let directory = try Directory()
        let bench = try bench(directory.socket, mode: mode)
        #expect(try directory.mode(directory.socket) == Int(mode))
        #expect(bench.addresses.map(\.listenerText) == ["unix:\(directory.socket)"])
        let client = try RawClient(path: directory.socket)
        try client.sends([.hello(), .numbered(1)])
        try bench.waits { try bench.received() == [.hello(), .numbered(1)] }
        try bench.onLoop { $0.transport.send($0.recorder.numbers[0], .pingresp) }
        #expect(client.receivesOnce() == [0xD0, 0x00])
        try bench.stops()
        #expect(!FileManager.default.fileExists(atPath: directory.socket))
    }

    @Test("MQTT over WebSocket over a Unix socket")
    func webSocketOverUnix() throws {
        let directory = try Directory()
        let bench = try bench(directory.socket, framing: .webSocket(paths: ["/mqtt"]))
        let client = try WebSocketClient(RawClient(path: directory.socket))
        try client.sends([.hello()])
        try bench.waits { try bench.received() == [.hello()] }
    }

    @Test("a socket that a dead process left behind is replaced")
    func stale() throws {
        let directory = try Directory()
        // Bound and closed without being removed, as a killed process leaves it.
        do {
            let (_, socket) = try UnixSocketFile.bind(path: directory.socket, mode: 0o600)
            close(socket)
        }
        #expect(FileManager.default.fileExists(atPath: directory.socket))
        let bench = try bench(directory.socket)
        _ = try RawClient(path: directory.socket)
        try bench.waits { try bench.told().last == .closed }
    }

    @Test("a socket that somebody listens on is left alone, also when its new owner ends")
    func inUse() throws {
        let directory = try Directory()
        let first = try bench(directory.socket)
        do {
            _ = try bench(directory.socket)
            Issue.record("two listeners on one path")
        } catch let error as ListenFailure {
            #expect(
                error.description
                    == "cannot listen on unix:\(directory.socket): another process listens there")
        }
        _ = try RawClient(path: directory.socket)
        // Somebody else's file under the path is not removed either.
        try FileManager.default.removeItem(atPath: directory.socket)
        #expect(FileManager.default.createFile(atPath: directory.socket, contents: Data("mine".utf8)))
        try first.stops()
        #expect(FileManager.default.fileExists(atPath: directory.socket))
    }

    @Test("a file that is no socket is left alone, and the error says so")
    func notASocket() throws {
        let directory = try Directory()
        #expect(FileManager.default.createFile(atPath: directory.socket, contents: Data("mine".utf8)))
        do {
            _ = try bench(directory.socket)
            Issue.record("replaced a file")
        } catch let error as ListenFailure {
            #expect(
                error.description
                    == "cannot listen on unix:\(directory.socket): the file exists and is not a socket")
        }
        #expect(FileManager.default.fileExists(atPath: directory.socket))
    }

    @Test("a directory that is not there is told in one line")
    func noDirectory() throws {
        let directory = try Directory()
        do {
            _ = try bench(directory.path + "/no/mqtt.sock")
            Issue.record("bound nowhere")
        } catch let error as ListenFailure {
            #expect(error.reason == "No such file or directory")
        }
    }

    @Test("when one listener cannot open, the sockets of the others are gone again")
    func allOrNone() throws {
        let directory = try Directory()
        let first = try Bench()
        let place = ListenAddress.tcp(host: "127.0.0.1", port: first.port)
        do {
            _ = try Bench(tune: {
                $0.listeners = [
                    ListenerPlan(
                        index: 0, address: .unix(path: directory.socket, mode: 0o600), maximumPacketSize: 100,
                        connectionsMax: 1),
                    ListenerPlan(index: 1, address: place, maximumPacketSize: 100, connectionsMax: 1),
                ]
            })
            Issue.record("opened an address in use")
        } catch let error as ListenFailure {
            #expect(error.address == place)
        }
        #expect(!FileManager.default.fileExists(atPath: directory.socket))
    }

    @Test("each listener has its own packet size and number of connections, and all share one number")
    func ownSettings() throws {
        let directory = try Directory()
        let bench = try Bench(tune: { plan in
            let localhost = ListenAddress.tcp(host: "127.0.0.1", port: 0)
            plan.listeners = [
                ListenerPlan(index: 0, address: localhost, maximumPacketSize: 1000, connectionsMax: 2),
                ListenerPlan(
                    index: 1, address: localhost, framing: .webSocket(paths: ["/mqtt"]),
                    maximumPacketSize: 100, connectionsMax: 2),
                ListenerPlan(
                    index: 2, address: .unix(path: directory.socket, mode: 0o600), maximumPacketSize: 1000,
                    connectionsMax: 5),
            ]
            plan.connectionsMax = 4
        })
        let plain = try RawClient(port: bench.port)
        try plain.sends([.hello(), .numbered(1, padding: 500)])
        try bench.waits { try bench.received(0).count == 2 }
        let web = try WebSocketClient(RawClient(port: try #require(bench.addresses[1].port)))
        try web.sends([.hello(), .numbered(1, padding: 500)])
        try bench.waits { try bench.told(1).last == .malformed(.packetTooLarge) }
        let local = try RawClient(path: directory.socket)
        try bench.waits { try bench.told(2) == [.opened(listener: 2)] }
        let second = try RawClient(port: bench.port)
        try bench.waits { try bench.told(3) == [.opened(listener: 0)] }
        // The third of the first listener, and the fifth of all.
        #expect(try RawClient(port: bench.port).receivesToEnd() == [])
        #expect(try RawClient(path: directory.socket).receivesToEnd() == [])
        let refusals: [TransportTrouble] = [
            .connectionsRefused(listener: 0, count: 1), .connectionsRefused(listener: 2, count: 1),
        ]
        try bench.waits { try bench.onLoop { $0.recorder.troubles } == refusals }
        withExtendedLifetime((local, second)) {}
    }

    /// Echoes what is published, as far as a client library needs a broker for that.
    private static let echo: @Sendable (Bench.Loop, ConnectionNumber, Told) -> Void = { loop, number, told in
        guard case .received(let packet) = told else { return }
        switch packet {
        case .connect: loop.transport.send(number, .connack(Connack(sessionPresent: false, reason: .success)))
        case .subscribe(let subscribe):
            loop.transport.send(
                number, .suback(Suback(id: subscribe.id, reasons: [.success])))
        case .publish: loop.transport.send(number, packet)
        case .pingreq: loop.transport.send(number, .pingresp)
        case .disconnect: loop.transport.close(number)
        default: break
        }
    }

    @Test(
        "paho speaks MQTT over WebSocket to it: small, large and many messages, and an orderly end",
        arguments: [4, 5])
    func paho(version: Int) throws {
        let bench = try Bench(framing: .webSocket(paths: ["/mqtt"]), answer: Self.echo)
        let script = """
            import sys, paho.mqtt.client as mqtt
            sizes = [0, 1, 125, 126, 65535, 65536, 900000] + [10] * 500
            got = []
            def connected(client, *_): client.subscribe("t")
            def subscribed(client, *_):
                for index, size in enumerate(sizes): client.publish("t", bytes([index % 251]) * size)
            def message(client, _, m):
                got.append(m.payload)
                if len(got) == len(sizes): client.disconnect()
            arguments = dict(transport="websockets", protocol=int(sys.argv[2]), client_id="paho")
            if hasattr(mqtt, "CallbackAPIVersion"):
                arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
            client = mqtt.Client(**arguments)
            client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, message
            client.connect("127.0.0.1", int(sys.argv[1]))
            client.loop_forever()
            assert got == [bytes([i % 251]) * s for i, s in enumerate(sizes)], [len(g) for g in got]
            print("all", len(got))
            """
        let said = try ChildProcess.run(
            "/usr/bin/python3", ["-W", "ignore", "-c", script, "\(bench.port)", "\(version)"]
        ).text
        #expect(said == "all 507\n")
        try bench.waits { try bench.told().last == .closed }
    }
}
