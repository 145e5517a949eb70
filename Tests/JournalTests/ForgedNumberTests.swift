import GatewayCore
import Testing

@testable import Journal

/// Numbers that verify and cannot be true: every field of fixed size in every file of a store, with values that stand
/// for all others. What must hold is what must hold when the fuzzer makes stores up.
@Suite("Forged numbers")
struct ForgedNumberTests {
    /// Some hundred bytes of Records, in a few segments and two checkpoints.
    private static func sample() throws -> FaultDisk {
        var house = try FuzzedStore.lived(6)
        try house.checkpoints()
        try house.publishes("writer", "last", .atLeastOnce, to: [])
        return house.disk
    }

    /// Values in the place of `number`.
    private static func lies(about number: UInt64, of bytes: Int) -> [UInt64] {
        let all: [UInt64] = [
            0, number &- 1, number &+ 1, number &+ 200, 1 << 31, 1 << 50, 1 << 61, 1 << 63, .max,
        ]
        let highest: UInt64 = bytes == 8 ? .max : 1 << (8 * UInt64(bytes)) - 1
        return Array(Set(all.map { $0 & highest })).filter { $0 != number }.sorted()
    }

    /// Puts each lie about the field at `place`, of so many bytes, into the file, has it sealed anew, and looks for a
    /// broken rule.
    private static func expectHarmless(
        _ disk: FaultDisk, _ name: String, _ field: String, at place: Int, _ count: Int,
        seal: (inout [UInt8]) throws -> Void, at location: SourceLocation = #_sourceLocation
    ) throws -> Int {
        let bytes = disk.content(name)
        let number = bytes[place..<place + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        let lies = lies(about: number, of: count)
        for lie in lies {
            var forged = bytes
            for i in 0..<count { forged[place + i] = UInt8(truncatingIfNeeded: lie >> (8 * UInt64(i))) }
            try seal(&forged)
            var store = disk
            store.put(name, forged)
            let rule = FuzzedStore(store).brokenRule()
            #expect(
                rule == nil, "\(field) at \(place) of \(name): \(lie) for \(number)", sourceLocation: location
            )
        }
        return lies.count
    }

    @Test("in the header of a segment")
    func segments() throws {
        var count = 0
        let plain = try Self.sample()
        let merged = try FuzzedStore.compacted().disk
        let names =
            plain.fileNames().map { (plain, $0) }
            + merged.fileNames().filter { $0.hasPrefix("old-") }.map { (merged, $0) }
        #expect(names.contains { $0.1.hasPrefix("old-") })
        for (disk, name) in names {
            let id: UInt64
            switch StoreFile(name: name) {
            case .segment(let number), .merged(let number): id = number
            default: continue
            }
            let fields = [
                ("predecessor", 40, 8), ("its end", 48, 8), ("its last", 56, 8), ("clock", 64, 8),
                ("boot", 72, 4), ("uptime", 92, 8), ("flags", 100, 4), ("merged last", 104, 8),
                ("merged end", 112, 8),
            ]
            for (field, place, size) in fields {
                count += try Self.expectHarmless(disk, name, field, at: place, size) { bytes in
                    let seed = UInt32(truncatingIfNeeded: id) ^ 0x7469_6465
                    bytes.put(Checksum.of(bytes, 8..<pageBytes, seed: seed), at: 4)
                }
            }
        }
        #expect(count > 200)
    }

    @Test("in the header of a batch, and in a footer")
    func batches() throws {
        let disk = try Self.sample()
        let store = try #require(testStore)
        var count = 0
        for name in disk.fileNames() {
            guard case .segment(let id) = StoreFile(name: name) else { continue }
            let bytes = disk.content(name)
            for start in stride(from: pageBytes, to: bytes.count, by: pageBytes) {
                let isBatch =
                    (try? BatchHeader(decoding: bytes, at: start, offset: start, store: store, segment: id))
                    != nil
                let size = isBatch ? BatchHeader.size : Footer.headSize
                let fields =
                    isBatch
                    ? [("first", 24), ("durable before", 32), ("clock", 40), ("wall clock", 56)]
                    : [("end", 24), ("first", 32), ("last", 40), ("earliest", 48), ("latest", 56)]
                for (field, place) in fields {
                    count += try Self.expectHarmless(disk, name, field, at: start + place, 8) { bytes in
                        let seed = Checksum.seed(store, id, offset: start)
                        bytes.put(Checksum.of(bytes, start + 8..<start + size, seed: seed), at: start + 4)
                    }
                }
            }
        }
        #expect(count > 200)
    }

    @Test("at the head of a checkpoint, and in its list of segments")
    func checkpoints() throws {
        let disk = try Self.sample()
        var count = 0
        for name in disk.fileNames() where name.hasPrefix("ckpt-") {
            let rows = try Forgery.header(of: name, disk).segments.count
            #expect(rows > 1)
            let head = CheckpointChunk.headSize
            var fields = [
                ("position", head, 8), ("clock", head + 8, 8), ("boot", head + 16, 4),
                ("next segment", head + 20, 8), ("anchor", head + 28, 1), ("count", head + 45, 4),
                ("uptime", head + 49 + 24 * rows + 16, 8),
            ]
            for row in 0..<rows {
                let places = Forgery.places(ofRow: row, of: rows)
                fields += [
                    ("segment", places.segment, 8), ("its end", places.end, 8), ("its last", places.last, 8),
                    ("its first", places.first, 8), ("its bytes", places.capacity, 8),
                ]
            }
            for (field, place, size) in fields {
                count += try Self.expectHarmless(disk, name, field, at: place, size) { bytes in
                    var forged = disk
                    try Forgery.change(name, &forged) { $0 = bytes }
                    bytes = forged.content(name)
                }
            }
        }
        #expect(count > 200)
    }
}
