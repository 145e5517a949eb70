import MQTT
import Testing

@testable import GatewayCore

@Suite("Promises in their lines")
struct CommitGateTests {
    private static func peer(_ number: UInt64) -> Peer { .client(ConnectionID(number)) }
    private static func packet(_ id: UInt16) -> Packet {
        .puback(Acknowledgement(PacketIdentifier(rawValue: id) ?? 1))
    }

    private static func released(_ gate: inout CommitGate) -> [Packet] {
        var packets: [Packet] = []
        while let promise = gate.release() { packets.append(promise.packet) }
        return packets
    }

    /// Whether the packet waits.
    private static func parks(
        _ gate: inout CommitGate, _ id: UInt16, to number: UInt64, after position: UInt64
    ) -> Bool { ticket(&gate, id, to: number, after: position) != nil }

    /// nil when the packet may leave.
    private static func ticket(
        _ gate: inout CommitGate, _ id: UInt16, to number: UInt64, after position: UInt64
    ) -> CommitGate.Ticket? {
        guard gate.mustPark(for: peer(number), after: Position(position)) else { return nil }
        return gate.park(packet(id), to: peer(number), after: Position(position))
    }

    @Test("A12 One peer's promises leave in order, and nobody waits for another's")
    func lines() {
        var gate = CommitGate(durable: Position(5))
        let parked = [
            Self.parks(&gate, 0, to: 1, after: 5), Self.parks(&gate, 1, to: 1, after: 9),
            Self.parks(&gate, 2, to: 1, after: 3), Self.parks(&gate, 3, to: 2, after: 7),
        ]
        #expect(parked == [false, true, true, true], "the third only for the sake of the second")
        #expect(gate.parkedCount(for: Self.peer(1)) == 2)
        gate.advance(to: Position(8))
        let first = Self.released(&gate)
        #expect(first == [Self.packet(3)])
        gate.advance(to: Position(9))
        let second = Self.released(&gate)
        #expect(second == [Self.packet(1), Self.packet(2)])
        #expect(gate.parkedCount(for: Self.peer(1)) == 0)
    }

    @Test("A position older than that of an excused promise before it is met in time")
    func olderBehind() {
        var gate = CommitGate(durable: .zero)
        let ticket = gate.park(Self.packet(1), to: Self.peer(1), after: Position(9))
        _ = gate.park(Self.packet(2), to: Self.peer(1), after: Position(4))
        gate.excuse(ticket)
        let first = Self.released(&gate)
        #expect(first == [Self.packet(1)])
        gate.advance(to: Position(4))
        let second = Self.released(&gate)
        #expect(second == [Self.packet(2)])
        gate.advance(to: Position(9))
        let third = Self.released(&gate)
        #expect(third == [])
    }

    /// A gate that is surely right: it looks at everything each time.
    private struct Plain {
        var durable: UInt64 = 0
        var lines: [[(position: UInt64, packet: UInt16)]] = Array(repeating: [], count: 4)

        mutating func released() -> [[UInt16]] {
            lines.indices.map { line in
                var out: [UInt16] = []
                while let first = lines[line].first, first.position <= durable {
                    out.append(first.packet)
                    lines[line].removeFirst()
                }
                return out
            }
        }
    }

    @Test("It does what a plain gate does, whatever is parked, excused and made durable", arguments: 0..<50)
    func random(seed: Int) {
        var state = UInt64(seed)
        func roll(_ sides: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % sides
        }
        var gate = CommitGate(durable: .zero)
        var plain = Plain()
        var tickets: [(line: Int, packet: UInt16, position: UInt64, ticket: CommitGate.Ticket)] = []
        var next: UInt16 = 1
        var last: UInt64 = 0
        for _ in 0..<2000 {
            var out: [[UInt16]] = Array(repeating: [], count: 4)
            switch roll(4) {
            case 0, 1:
                let line = roll(4)
                last += UInt64(roll(2))
                let position = roll(5) == 0 ? last / 2 : last
                let ticket = Self.ticket(&gate, next, to: UInt64(line), after: position)
                plain.lines[line].append((position, next))
                if let ticket { tickets.append((line, next, position, ticket)) } else { out[line] = [next] }
                next += 1
            case 2:
                plain.durable += UInt64(roll(Int(last - plain.durable) + 1))
                gate.advance(to: Position(plain.durable))
            default:
                tickets.removeAll { $0.position <= plain.durable }
                guard !tickets.isEmpty else { continue }
                let excused = tickets.remove(at: roll(tickets.count))
                gate.excuse(excused.ticket)
                for i in plain.lines[excused.line].indices
                where plain.lines[excused.line][i].packet == excused.packet {
                    plain.lines[excused.line][i].position = 0
                }
            }
            while let promise = gate.release() {
                guard case .client(let id) = promise.peer, case .puback(let answer) = promise.packet else {
                    continue
                }
                out[Int(id.number)].append(answer.id.rawValue)
            }
            let expected = plain.released()
            #expect(out == expected)
        }
    }
}
