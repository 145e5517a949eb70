import GatewayCore
import Testing

@testable import Journal

@Suite("Records that wait, in one stretch of memory")
struct SlotQueueTests {
    @Test(
        "It holds what a plain list would hold, whatever is taken out of it and put back", arguments: 0..<20)
    func likeAList(seed: UInt64) {
        var state = seed
        func roll(_ sides: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % sides
        }
        var queue = SlotQueue()
        var plain: [UInt64] = []
        var next: UInt64 = 1
        for _ in 0..<3000 {
            switch roll(8) {
            case 0, 1, 2:
                queue.append(Self.slot(next))
                plain.append(next)
                next += 1
            case 3 where !plain.isEmpty:
                queue.removeFirst()
                plain.removeFirst()
            case 4 where !plain.isEmpty:
                queue.removeLast()
                plain.removeLast()
            case 5:
                let count = roll(4) == 0 ? plain.count : roll(plain.count + 1)
                let taken = queue.take(count)
                #expect(taken.map(\.position.number) == Array(plain.prefix(count)))
                #expect(taken.allSatisfy { $0.record != nil }, "it takes the Record with it")
                plain.removeFirst(count)
                guard roll(2) == 0 else { break }
                queue.putBack(taken)
                plain = taken.map(\.position.number) + plain
            case 6:
                queue.removeAll { $0.position.number.isMultiple(of: 5) }
                plain.removeAll { $0.isMultiple(of: 5) }
            default:
                let end = roll(plain.count + 1)
                var lent: [UInt64] = []
                queue.lend(before: end) { index, slot in
                    slot.lend { record, position in
                        if copy record == .counters(nextSession: position.number) {
                            lent.append(position.number)
                        }
                    }
                    return index < 10
                }
                #expect(lent == Array(plain.prefix(min(end, 11))))
                #expect(queue.allSatisfy { $0.record != nil }, "what was lent is put back")
            }
            #expect(queue.map(\.position.number) == plain)
        }
    }

    private static func slot(_ number: UInt64) -> PendingRecords.Slot {
        PendingRecords.Slot(
            position: Position(number), arrivedAt: Instant(milliseconds: number),
            record: .counters(nextSession: number), bytes: 1, kind: .prompt)
    }
}
