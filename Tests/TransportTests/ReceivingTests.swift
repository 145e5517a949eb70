import MQTT
import NIOCore
import Testing

@testable import Transport

@Suite("Transport: packets in", .serialized)
struct ReceivingTests {
    @Test("packets are whole however TCP cuts them")
    func fragments() throws {
        let bench = try Bench()
        let client = try RawClient(port: bench.port)
        let packets: [Packet] = [.hello(), .numbered(1), .pingreq]
        for byte in packets.flatMap({ $0.bytes(.v5_0) }) { try client.sends([byte]) }
        try bench.waits { try bench.received().count == 3 }
        #expect(try bench.told() == [.opened(listener: 7)] + packets.map { .received($0) })
    }

    @Test("many packets in one segment come in order, and share few cycles")
    func manyInOne() throws {
        let bench = try Bench()
        let client = try RawClient(port: bench.port)
        let packets: [Packet] = [.hello()] + (0..<20_000).map { .numbered($0) }
        try client.sends(packets)
        try bench.waits { try bench.received().count == packets.count }
        #expect(try bench.received() == packets)
        #expect(try bench.onLoop { $0.recorder.cycles } < 1000)
    }

    @Test("a paused client is told nothing of, and nothing is lost or out of order when it is read again")
    func pauseAndResume() throws {
        let bench = try Bench { loop, number, told in
            if told == .received(.numbered(10, padding: 100)) { loop.transport.reading(number, false) }
        }
        let client = try RawClient(port: bench.port)
        let packets: [Packet] = [.hello()] + (0..<400).map { .numbered($0, padding: 100) }
        try client.sends(Array(packets[..<200]))
        try bench.waits { try bench.received().last == Packet.numbered(10, padding: 100) }
        try client.sends(Array(packets[200...]))
        usleepMilliseconds(100)
        #expect(try bench.received().count == 12)
        try bench.onLoop { $0.transport.reading($0.recorder.numbers[0], true) }
        try bench.waits { try bench.received().count == packets.count }
        #expect(try bench.received() == packets)
    }

    @Test("pausing takes effect at once, within the bytes that came together")
    func pauseAtOnce() throws {
        let bench = try Bench { loop, number, told in
            if told == .received(.pingreq) { loop.transport.reading(number, false) }
        }
        let client = try RawClient(port: bench.port)
        try client.sends([.hello(), .pingreq, .numbered(1), .pingreq, .numbered(2)])
        for shown in [2, 4, 5] {
            try bench.waits { try bench.received().count == shown }
            usleepMilliseconds(30)
            #expect(try bench.received().count == shown)
            try bench.onLoop { $0.transport.reading($0.recorder.numbers[0], true) }
        }
    }

    @Test(
        "[MQTT5-3.2.2-15] a smaller largest packet holds from the next one on, also within the bytes that came together"
    )
    func packetSize() throws {
        let bench = try Bench { loop, number, told in
            if case .received(.connect) = told { loop.transport.packetSize(number, atMost: 100) }
        }
        let client = try RawClient(port: bench.port)
        try client.sends([.hello(), .numbered(1), .numbered(2, padding: 100), .numbered(3)])
        try bench.waits { try bench.told().count == 4 }
        #expect(
            try bench.told() == [
                .opened(listener: 7), .received(.hello()), .received(.numbered(1)),
                .malformed(.packetTooLarge),
            ])
    }

    @Test("while a client is paused TCP holds it back")
    func pausePresses() throws {
        let bench = try Bench { loop, number, told in
            if case .opened = told { loop.transport.reading(number, false) }
        }
        let client = try RawClient(port: bench.port)
        let sent = client.sendsWithoutWaiting(atMost: 64 << 20)
        #expect(sent < 32 << 20)
        #expect(try bench.received() == [])
    }

    @Test(
        "a paused client that is gone is told to be, and before that what it sent", arguments: [true, false])
    func pausedThenClosed(again: Bool) throws {
        let bench = try Bench { loop, number, told in
            if case .received(.connect) = told { loop.transport.reading(number, false) }
            // A host that wants no more just then is told the rest all the same: there is no more.
            if again, told == .received(.numbered(1)) { loop.transport.reading(number, false) }
        }
        var client: RawClient? = try RawClient(port: bench.port)
        try client?.sends([.hello(), .numbered(1), .disconnect(Disconnect())])
        try bench.waits { try bench.received().count == 1 }
        client = nil
        try bench.waits { try bench.told().last == .closed }
        #expect(
            try bench.told().suffix(3) == [
                .received(.numbered(1)), .received(.disconnect(Disconnect())), .closed,
            ])
    }

    @Test("[MQTT5-4.13.1-1] after a malformed packet nothing is read, and the answer arrives before the end")
    func malformed() throws {
        let bench = try Bench { loop, number, told in
            guard case .malformed(let error) = told else { return }
            loop.transport.send(number, .disconnect(Disconnect(error.reasonCode)))
            loop.transport.close(number)
        }
        let client = try RawClient(port: bench.port)
        try client.sends(Packet.hello().bytes(.v5_0) + [0x00, 0x00] + Packet.numbered(1).bytes(.v5_0))
        // Still being sent while the answer is on its way: a socket closed with these unread would be reset.
        try client.sends((0..<1000).map { .numbered($0, padding: 50) })
        #expect(client.receivesToEnd() == Packet.disconnect(Disconnect(.malformedPacket)).bytes(.v5_0))
        #expect(try bench.received() == [.hello()])
    }

    /// A CONNECT that asks for a Protocol Level nobody speaks, and the CONNACK it gets.
    @Test(
        "[MQTT5-3.1.2-2], [MQTT311-3.1.2-2] a client that asks for another version is refused in words it knows",
        arguments: zip(
            [2, 6] as [UInt8], [[0x20, 0x02, 0x00, 0x01], [0x20, 0x03, 0x00, 0x84, 0x00]] as [[UInt8]]))
    func unsupportedVersion(level: UInt8, answer: [UInt8]) throws {
        let bench = try Bench { loop, number, told in
            guard case .malformed(let error) = told else { return }
            loop.transport.send(number, .connack(Connack(sessionPresent: false, reason: error.reasonCode)))
            loop.transport.close(number)
        }
        let client = try RawClient(port: bench.port)
        try client.sends([0x10, 0x0D, 0, 4] + Array("MQTT".utf8) + [level, 2, 0, 60, 0, 1, 0x61])
        #expect(client.receivesToEnd() == answer)
        #expect(try bench.told()[1] == .malformed(.unsupportedProtocolVersion(level)))
    }

    @Test(
        "[MQTT5-4.13.2-1] the version of a CONNECT is told also when the rest of it cannot be read",
        arguments: zip([4, 5] as [UInt8], [ProtocolVersion.v3_1_1, .v5_0]))
    func versionOfMalformedConnect(level: UInt8, version: ProtocolVersion) throws {
        let bench = try Bench()
        let client = try RawClient(port: bench.port)
        // The reserved flag is set.
        try client.sends([0x10, 0x0D, 0, 4] + Array("MQTT".utf8) + [level, 3, 0, 60, 0, 1, 0x61])
        try bench.waits { try bench.told().last == .malformed(.reservedConnectFlag) }
        #expect(try bench.onLoop { $0.recorder.versions } == [version])
    }

    @Test("what never was a CONNECT has no version")
    func versionOfNothing() throws {
        let bench = try Bench()
        let client = try RawClient(port: bench.port)
        try client.sends([0xC0, 0])
        try bench.waits { try bench.told().last == .malformed(.firstPacketNotConnect) }
        #expect(try bench.onLoop { $0.recorder.versions } == [nil])
    }

    @Test("a packet above the listener's size is refused from its header")
    func tooLarge() throws {
        let bench = try Bench(maximumPacketSize: 1000)
        let client = try RawClient(port: bench.port)
        try client.sends([.hello()])
        try client.sends(Array(Packet.numbered(1, padding: 1000).bytes(.v5_0)[..<3]))
        try bench.waits { try bench.told().last == .malformed(.packetTooLarge) }
    }
}
