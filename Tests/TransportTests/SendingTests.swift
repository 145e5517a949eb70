import Foundation
import MQTT
import NIOCore
import Testing

@testable import Transport

@Suite("Transport: packets out and the end of connections", .serialized)
struct SendingTests {
    @Test(
        "packets are written in the version of the client's CONNECT",
        arguments: [ProtocolVersion.v3_1_1, .v5_0])
    func version(_ version: ProtocolVersion) throws {
        let bench = try Bench { loop, number, told in
            if case .received(.connect) = told { loop.transport.send(number, .puback(Acknowledgement(7))) }
            if case .received(.connect) = told { loop.transport.send(number, .numbered(1)) }
        }
        let client = try RawClient(port: bench.port)
        try client.sends([.hello(version)], version)
        let expected = [Packet.puback(Acknowledgement(7)), .numbered(1)].flatMap { $0.bytes(version) }
        #expect(client.receivesOnce() == expected)
    }

    @Test("what is sent within a cycle leaves in one write")
    func coalesced() throws {
        let bench = try Bench { loop, number, told in
            if case .received(let packet) = told { loop.transport.send(number, packet) }
        }
        let client = try RawClient(port: bench.port)
        try client.sends([.hello()])
        _ = client.receivesOnce()
        let packets = (0..<100).map { Packet.numbered($0) }
        try client.sends(packets)
        #expect(client.receivesOnce() == packets.flatMap { $0.bytes(.v5_0) })
    }

    @Test("close comes after everything sent, also when the client has more to say")
    func closeFlushes() throws {
        let packets: [Packet] = (0..<40).map { .numbered($0, padding: 50_000) }
        let bench = try Bench { loop, number, told in
            guard case .received(.connect) = told else { return }
            for packet in packets { loop.transport.send(number, packet) }
            loop.transport.close(number)
            loop.transport.send(number, .pingresp)
        }
        let client = try RawClient(port: bench.port, receiveBuffer: 8192)
        try client.sends([.hello()])
        try client.sends((0..<100).map { .numbered($0) })
        let received = try #require(client.receivesToEnd())
        // Compared beforehand: to describe how megabytes differ would take longer than anyone waits.
        let isWhole = received == packets.flatMap { $0.bytes(.v5_0) }
        #expect(isWhole, "\(received.count) bytes came")
        #expect(try bench.received() == [.hello()])
    }

    @Test(
        "what a client sent before it reset its connection is told, but not in the middle of the write that fails"
    )
    func resetBeforeAWrite() throws {
        let bench = try Bench { loop, number, told in
            if case .received = told { loop.transport.send(loop.recorder.numbers[0], .pingresp) }
        }
        let witness = try RawClient(port: bench.port)
        try witness.sends([.hello()])
        #expect(witness.receivesOnce() == Packet.pingresp.bytes(.v5_0))
        let client = try RawClient(port: bench.port)
        try client.sends([.hello()])
        #expect(witness.receivesOnce() == Packet.pingresp.bytes(.v5_0))
        let (isReset, toldMeanwhile) = try bench.onLoop { loop in
            // On the loop, so that it reads nothing before it writes.
            let isReset = client.resets(
                after: Packet.numbered(1).bytes(.v5_0) + Packet.numbered(2).bytes(.v5_0))
            let before = loop.recorder.told[loop.recorder.numbers[1]]
            loop.transport.send(loop.recorder.numbers[1], .pingresp)
            loop.transport.flush()
            return (isReset, loop.recorder.told[loop.recorder.numbers[1]] != before)
        }
        #expect(isReset)
        #expect(!toldMeanwhile)
        try bench.waits { try bench.told(1).last == .closed }
        #expect(try bench.received(1) == [.hello(), .numbered(1), .numbered(2)])
        // What the delegate sent to somebody else when it was told of them leaves all the same.
        var answers: [UInt8] = []
        while answers.count < 4, let bytes = witness.receivesOnce(), !bytes.isEmpty { answers += bytes }
        #expect(answers == Packet.pingresp.bytes(.v5_0) + Packet.pingresp.bytes(.v5_0))
    }

    @Test("a client that does not read is told of, not waited for, and cut at the byte limit")
    func cutAtBytes() throws {
        let bench = try Bench(tune: { $0.waitingBytesMax = 1 << 20 })
        let client = try RawClient(port: bench.port, receiveBuffer: 4096)
        try client.sends([.hello()])
        try bench.waits { try bench.received().count == 1 }
        for number in 0..<800 {
            try bench.onLoop { $0.transport.send($0.recorder.numbers[0], .numbered(number, padding: 60_000)) }
            if try bench.told().last == .closed { break }
        }
        try bench.waits { try bench.told().last == .closed }
        #expect(try bench.told().dropFirst(2) == [.writability(false), .closed])
        let troubles = try bench.onLoop { $0.recorder.troubles }
        guard case .cutForNotReading(_, let waiting)? = troubles.first else {
            Issue.record("\(troubles)")
            return
        }
        #expect(waiting > 1 << 20 && waiting < 2 << 20)
    }

    @Test("a client that takes nothing for the stall timeout is cut; one that reads slowly is not")
    func stall() throws {
        let bench = try Bench(tune: {
            $0.stallTimeout = .seconds(2)
            $0.waitingBytesHigh = 1 << 20
            $0.waitingBytesMax = 64 << 20
        })
        let stuck = try RawClient(port: bench.port, receiveBuffer: 4096)
        try stuck.sends([.hello()])
        try bench.waits { try bench.received(0).count == 1 }
        let slow = try RawClient(port: bench.port, receiveBuffer: 4096)
        try slow.sends([.hello()])
        try bench.waits { try bench.received(1).count == 1 }
        try bench.onLoop { loop in
            for number in 0..<200 {
                for connection in loop.recorder.numbers {
                    loop.transport.send(connection, .numbered(number, padding: 100_000))
                }
            }
        }
        try bench.waits { try bench.told(1).last == .writability(false) }
        for _ in 0..<50 {
            for _ in 0..<10 { _ = slow.receivesOnce(upTo: 60_000) }
            usleepMilliseconds(100)
        }
        #expect(try bench.told(0).last == .closed)
        #expect(try !bench.told(1).contains(.closed))
        withExtendedLifetime(stuck) {}
    }

    @Test("writability comes back when the client has read")
    func writability() throws {
        let bench = try Bench()
        let client = try RawClient(port: bench.port, receiveBuffer: 4096)
        try client.sends([.hello()])
        try bench.waits { try bench.received().count == 1 }
        try bench.onLoop { loop in
            for number in 0..<100 {
                loop.transport.send(loop.recorder.numbers[0], .numbered(number, padding: 40_000))
            }
            // The last thing sent makes the end of the stream recognisable.
            loop.transport.send(loop.recorder.numbers[0], .pingresp)
        }
        try bench.waits { try bench.told().last == .writability(false) }
        var whole: [UInt8] = []
        for number in 0..<100 { whole += Packet.numbered(number, padding: 40_000).bytes(.v5_0) }
        whole += [0xD0, 0x00]
        var read: [UInt8] = []
        while read.count < whole.count, let bytes = client.receivesOnce(), !bytes.isEmpty { read += bytes }
        #expect(read == whole)
        try bench.waits { try bench.told().last == .writability(true) }
    }

    @Test("numbers are never used again, and rise")
    func numbers() throws {
        let bench = try Bench()
        for index in 0..<20 {
            do { _ = try RawClient(port: bench.port) }
            try bench.waits { try bench.told(index).last == .closed }
        }
        let numbers = try bench.onLoop { $0.recorder.numbers }
        #expect(zip(numbers, numbers.dropFirst()).allSatisfy(<))
        try bench.onLoop { loop in loop.transport.send(numbers[0], .pingresp) }
    }

    @Test("beyond its limit a listener accepts and closes at once, and goes on when there is room")
    func connectionLimit() throws {
        let bench = try Bench(connectionsMax: 2)
        var first: RawClient? = try RawClient(port: bench.port)
        let second = try RawClient(port: bench.port)
        try bench.waits { try bench.onLoop { $0.transport.socketCount } == 2 }
        for _ in 0..<3 { #expect(try RawClient(port: bench.port).receivesToEnd() == []) }
        #expect(try bench.onLoop { $0.recorder.troubles } == [.connectionsRefused(listener: 7, count: 1)])
        try first?.sends([.hello()])
        try bench.waits { try bench.received(0) == [.hello()] }
        first = nil
        try bench.waits { try bench.onLoop { $0.transport.socketCount } == 1 }
        let third = try RawClient(port: bench.port)
        try third.sends([.hello()])
        try bench.waits { try bench.received(2) == [.hello()] }
        withExtendedLifetime(second) {}
    }

    @Test("stopping closes every client after its last packet and cuts those that do not read it")
    func stop() throws {
        let bench = try Bench(tune: { $0.closeTimeout = .seconds(1) })
        let good = try RawClient(port: bench.port)
        let stuck = try RawClient(port: bench.port, receiveBuffer: 4096)
        try good.sends([.hello()])
        try stuck.sends([.hello()])
        try bench.waits { try bench.received(0).count + bench.received(1).count == 2 }
        try bench.onLoop { loop in
            for number in loop.recorder.numbers {
                loop.transport.send(number, .disconnect(Disconnect(.serverShuttingDown)))
            }
        }
        try bench.onLoop { loop in
            loop.transport.send(loop.recorder.numbers[1], .numbered(0, padding: 8 << 20))
        }
        let before = NIODeadline.now()
        try bench.stops()
        #expect(NIODeadline.now() - before < .seconds(4))
        #expect(try bench.onLoop { $0.transport.socketCount } == 0)
        #expect(try bench.told(0).last == .closed && bench.told(1).last == .closed)
        #expect(good.receivesToEnd() == Packet.disconnect(Disconnect(.serverShuttingDown)).bytes(.v5_0))
        #expect(throws: RawClient.Refused.self) { try RawClient(port: bench.port) }
    }

    @Test("an address in use is told in one line, and nothing stays open")
    func addressInUse() throws {
        let bench = try Bench()
        #expect(throws: ListenFailure.self) {
            try Bench(tune: { $0.listeners[0].address = .tcp(host: "127.0.0.1", port: bench.port) })
        }
    }

    @Test("TCP keepalive is on for what is accepted")
    func keepalive() throws {
        let bench = try Bench()
        let client = try RawClient(port: bench.port)
        try bench.waits { try bench.told().count == 1 }
        #expect(try keepaliveTimerRuns(port: bench.port))
        withExtendedLifetime(client) {}
    }
}

/// Whether the kernel's keepalive timer (kind 2 in proc_net_tcp) runs for the accepted end of a connection.
private func keepaliveTimerRuns(port: Int) throws -> Bool {
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: "/proc/net/tcp"))
    let table = String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
    let local = String(port, radix: 16, uppercase: true)
    let padded = String(repeating: "0", count: 4 - local.count) + local
    return table.split(separator: "\n").contains { line in
        let fields = line.split(separator: " ")
        // sl, local, remote, state, queues, timer
        return fields.count > 5 && fields[1].hasSuffix(":" + padded) && fields[3] == "01"
            && fields[5].hasPrefix("02:")
    }
}
