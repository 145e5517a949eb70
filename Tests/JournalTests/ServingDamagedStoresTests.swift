import Foundation
import GatewayCore
import MQTT
import Testing

@testable import Journal

/// What a whole gateway makes of damage: it starts, serves, tells, and brings everybody every acknowledged message
/// whose own batch is intact.
///
/// TIDEGATE_THOROUGH=1 in the environment spoils every byte of every file; without it those where fields are, and
/// samples of the rest.
@Suite("A gateway on a damaged store")
struct ServingDamagedStoresTests {
    static let isThorough = ProcessInfo.processInfo.environment["TIDEGATE_THOROUGH"] != nil

    /// How the life before ended.
    enum Ending: CaseIterable { case clean, killed }

    static let early = ["a", "b"]

    /// A store with every kind of file: three lives, Sessions that are owed messages in old and new segments, some
    /// that were given back, free and recycled files, footers, two checkpoints, and what fell by the wayside.
    static func sample(_ ending: Ending) throws -> Estate {
        var disk = FaultDisk(formatted: try #require(testStore))
        disk.space = FileSystemSpace(free: 1 << 30, total: 2 << 30)
        var house = try House.starting(on: disk)
        for (client, qos) in zip(early, [QoS.atLeastOnce, .exactlyOnce]) {
            try house.connects(client)
            try house.subscribes(client, "#", qos)
            try house.leaves(client)
        }
        try publish("first", 60, &house, to: early)
        // All of it is settled, so that its segments are free.
        for client in early {
            try house.connects(client)
            try house.leaves(client)
        }
        try house.passes(milliseconds: 10_000)
        for n in 0..<2 {
            try house.checkpoints()
            try publish("between-\(n)", 1, &house, to: early)
        }
        house = try house.restarted()
        try publish("second", 5, &house, to: early)
        try house.stops()
        house = try house.restarted()
        try house.connects("late")
        try house.subscribes("late", "#", .atLeastOnce)
        try house.leaves("late")
        try publish("third", 5, &house, to: early + ["late"])
        if ending == .clean { try house.stops() }
        house.change { disk in
            disk.put("LOCK", Array("process 12\n".utf8))
            disk.put(StoreFile.checkpoint(7).temporaryName, [1, 2, 3])
            disk.put("quarantine", [])
            disk.put("notes.txt", Array("whoever put this here".utf8))
        }
        return house.estate
    }

    private static func publish(_ name: String, _ count: Int, _ house: inout House, to receivers: [String])
        throws
    {
        try house.connects("p", expiry: 0)
        for n in 0..<count {
            try house.publishes(
                "p", "\(name)-\(n)", n % 2 == 0 ? .atLeastOnce : .exactlyOnce, padding: n * 797 % 6000,
                to: receivers)
        }
        try house.leaves("p")
    }

    @Test("the sample has every kind of file, and all of it is served")
    func whole() throws {
        for ending in Ending.allCases {
            let sample = try Self.sample(ending)
            let names = sample.disk.fileNames()
            for prefix in ["FORMAT", "LOCK", "seg-", "free-", "ckpt-", "reserve"] {
                #expect(names.contains { $0.hasPrefix(prefix) }, "\(prefix) in \(names)")
            }
            #expect(names.count { $0.hasPrefix("ckpt-") && !$0.hasSuffix(".tmp") } == 2)
            let store = try #require(testStore)
            let headers = names.compactMap { name -> SegmentHeader? in
                guard case .segment(let id) = StoreFile(name: name) else { return nil }
                return try? SegmentHeader(decoding: sample.disk.content(name), segment: id)
            }
            #expect(headers.contains { $0.isRecycled } && headers.count > 4)
            #expect(BatchMap(sample.disk, store).batches.count > 12)
            #expect(sample.ledger.owed["b"]?.count == 72)
            #expect(sample.ledger.owed["late"]?.count == 5)
            #expect(sample.ledger.had["b"].map { $0.count < 72 } ?? false)
            let house = try House.starting(on: sample.disk)
            #expect(!house.recovered.report.isDamaged)
            try Self.serve(sample.disk, sample, lost: [])
        }
    }

    /// Starts on `disk`, lets everybody come back, and compares with what `sample` promised.
    ///
    /// - Parameters:
    ///   - lost: Records that are damaged themselves.
    ///   - cut: Records of which everything is there but the padding behind their batch; they may count or not.
    ///   - mayBeSilent: nothing is left that could tell of them.
    static func serve(
        _ disk: FaultDisk, _ sample: Estate, lost: Set<UInt64>, cut: Set<UInt64> = [],
        mayBeSilent: Bool = false,
        _ what: @autoclosure () -> String = ""
    ) throws {
        var house = try House.starting(on: disk, ledger: sample.ledger)
        let report = house.recovered.report
        let covered = house.recovered.checkpoints.last?.position ?? .zero
        for client in early + ["late"] {
            try house.connects(client)
            // Only a Session whose beginning is lost may be gone, and then it must be.
            let began = try #require(sample.ledger.sessions[client])
            let isPresent = house.ledger.sessionPresent[client] == true
            if began <= covered || !cut.contains(began.number) {
                #expect(
                    isPresent == (began <= covered || !lost.contains(began.number)), "\(client), \(what())")
            }
            guard isPresent else { continue }
            let owed = sample.ledger.owed[client] ?? []
            let missing = owed.subtracting(house.ledger.had[client] ?? [])
            for text in missing.sorted() {
                let position = try #require(sample.ledger.positions[text])
                try #require(
                    lost.contains(position.number) || cut.contains(position.number),
                    "\(client) misses \(text), \(what())")
                #expect(
                    mayBeSilent || report.lost.contains { $0.contains(position.number) }
                        || !report.tornTails.isEmpty
                        || house.damagedDeliveries[.client(identifier: client)] != nil,
                    "\(text) is missing and nobody says so, \(what())")
            }
        }
        try publishMore(&house, what())
    }

    /// It takes new messages, and they too are there after the next start.
    private static func publishMore(_ house: inout House, _ what: @autoclosure () -> String) throws {
        try house.connects("p", expiry: 0)
        let receivers = early.filter { house.ledger.sessionPresent[$0] == true }
        try house.publishes("p", "new", .exactlyOnce, to: [])
        try house.passes(milliseconds: 10_000)
        for receiver in receivers {
            #expect(house.ledger.had[receiver]?.contains("new") ?? false, "\(receiver), \(what())")
            try house.leaves(receiver)
        }
        try house.publishes("p", "newer", .atLeastOnce, to: receivers)
        var next = try house.restarted()
        for receiver in receivers {
            let before = next.ledger.had[receiver] ?? []
            try next.connects(receiver)
            #expect(next.ledger.sessionPresent[receiver] == true, "\(receiver), \(what())")
            let after = next.ledger.had[receiver] ?? []
            #expect(after.subtracting(before) == ["newer"], "\(receiver), \(what())")
        }
    }

    // MARK: Every file

    /// Where to spoil a file: all of it where it is small and where fields are, and samples of the rest.
    private static func places(_ name: String, _ bytes: [UInt8], _ dice: inout Dice) -> [Int] {
        if isThorough { return Array(bytes.indices) }
        if bytes.count <= 64 { return Array(bytes.indices) }
        var places = Set<Int>()
        for start in stride(from: 0, to: bytes.count, by: pageBytes) {
            // The heads of batches, footers, segments and checkpoints stand at the start of a page.
            for _ in 0..<2 { places.insert(min(start + dice.below(100), bytes.count - 1)) }
            places.insert(min(start + dice.below(pageBytes), bytes.count - 1))
        }
        for end in 1...3 { places.insert(bytes.count - end) }
        return places.sorted()
    }

    @Test("any byte of any file flipped", arguments: Ending.allCases)
    func flips(ending: Ending) throws {
        let sample = try Self.sample(ending)
        let map = BatchMap(sample.disk, try #require(testStore))
        var dice = Dice(71)
        for name in sample.disk.fileNames() {
            let bytes = sample.disk.content(name)
            for place in Self.places(name, bytes, &dice) {
                var damaged = bytes
                damaged[place] ^= UInt8(1 << dice.below(8))
                var disk = sample.disk
                disk.put(name, damaged)
                let lost = map.positions(in: place..<place + 1, of: name)
                // In a recycled file the last batch looks like what was there before.
                let isEnd = ending == .killed && lost.contains(map.last)
                try Self.serve(
                    disk, sample, lost: lost, mayBeSilent: isEnd, "\(name) flipped at \(place)")
            }
        }
    }

    @Test("any file cut short anywhere, or gone", arguments: Ending.allCases)
    func truncations(ending: Ending) throws {
        let sample = try Self.sample(ending)
        let map = BatchMap(sample.disk, try #require(testStore))
        var dice = Dice(72)
        for name in sample.disk.fileNames() {
            let bytes = sample.disk.content(name)
            let lost = { map.positions(in: $0..<Int.max, of: name) }
            let cut = { map.positions(paddedIn: $0..<Int.max, of: name) }
            // A log that ends sooner looks like one to which less was ever written.
            let isTail = ending == .killed && name == map.batches.last?.file
            for place in Self.places(name, bytes, &dice) {
                var disk = sample.disk
                disk.put(name, Array(bytes.prefix(place)))
                try Self.serve(
                    disk, sample, lost: lost(place), cut: cut(place), mayBeSilent: isTail,
                    "\(name) cut at \(place)")
            }
            var disk = sample.disk
            disk.remove(name)
            try Self.serve(disk, sample, lost: lost(0), mayBeSilent: isTail, "\(name) is gone")
        }
    }

    @Test(
        "any page of any file zeroed, or in its place another page of the store or any batch of the same file",
        arguments: Ending.allCases)
    func pages(ending: Ending) throws {
        let sample = try Self.sample(ending)
        let map = BatchMap(sample.disk, try #require(testStore))
        var dice = Dice(73)
        let names = sample.disk.fileNames().filter { sample.disk.content($0).count >= pageBytes }
        for name in names {
            let bytes = sample.disk.content(name)
            for start in stride(from: 0, to: bytes.count, by: pageBytes) {
                let range = start..<min(start + pageBytes, bytes.count)
                let other = sample.disk.content(names[dice.below(names.count)])
                let from = dice.below(other.count / pageBytes) * pageBytes
                // All pairs of one file, but without a whole gateway, are in `MisplacedPagesTests`.
                let own = map.batches.filter { $0.file == name }.map(\.pages.lowerBound)
                for page in [
                    Array(repeating: 0, count: range.count), Array(other[from...].prefix(range.count)),
                ] + own.map({ Array(bytes[$0...].prefix(range.count)) }) {
                    var damaged = bytes
                    damaged.replaceSubrange(range.prefix(page.count), with: page)
                    guard damaged != bytes else { continue }
                    var disk = sample.disk
                    disk.put(name, damaged)
                    let lost = map.positions(in: range, of: name)
                    // Zeros behind the log are what is there before anything is written.
                    let isEnd = ending == .killed && lost.contains(map.last)
                    try Self.serve(
                        disk, sample, lost: lost, mayBeSilent: isEnd, "\(name), page at \(start)")
                }
            }
        }
    }
}
