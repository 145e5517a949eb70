import Foundation
import GatewayCore
import Testing

@testable import Disk
@testable import Journal

/// Promise P6, as far as it is the disk's: whatever stands in a store's directory, what of the log can be read is served.
@Suite("P6: a store opens", .serialized)
struct StartingTests {
    private static func url(_ scratch: Scratch, _ name: String) -> URL {
        URL(fileURLWithPath: scratch.path + "/" + name)
    }

    /// A stopped store: a checkpoint, and "kept" in its log.
    private static func stopped(_ path: String) throws {
        let host = try Host(path)
        host.append("kept")
        try host.settle()
        try host.checkpoint(Nothing())
        host.append("kept too")
        try host.close()
        host.thread.stop()
    }

    /// A state that stands for nothing, so that a checkpoint changes nothing.
    private struct Nothing: CheckpointSource {
        func snapshot(_ body: (Record) -> Void) {}
        func owes(from first: Position, through last: Position) -> Bool { true }
        func owedCount(in stretch: Stretch) -> Int { 1 }
        func needs(_ session: SessionID, _ delivery: Delivery) -> Bool { true }
        func strayPositions(in stretch: Stretch) -> Set<Position> { [] }
    }

    private static func replaceByDirectory(_ path: String) throws {
        if FileManager.default.fileExists(atPath: path) { try FileManager.default.removeItem(atPath: path) }
        try FileManager.default.createDirectory(atPath: path + "/inside", withIntermediateDirectories: true)
    }

    @Test("with something else in the place of LOCK: it says so, and a second opener is refused all the same")
    func lockCannotBeWritten() throws {
        let scratch = Scratch()
        try Self.stopped(scratch.path)
        try Self.replaceByDirectory(scratch.path + "/LOCK")
        do {
            let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
            #expect(store.warnings.contains { $0.contains("LOCK") && $0.contains("Is a directory") })
            let error = #expect(throws: StoreError.self) {
                try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
            }
            guard case .locked? = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            withExtendedLifetime(store) {}
        }
        _ = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
    }

    @Test("a shorter process number than the last one's is written over it, and read as one")
    func lockIsWrittenInPlace() throws {
        let scratch = Scratch()
        try Self.stopped(scratch.path)
        try Data("process 99999999999999999999\n".utf8).write(to: Self.url(scratch, "LOCK"))
        let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        let error = #expect(throws: StoreError.self) {
            try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        }
        #expect(error == .locked(path: scratch.path, holder: "process \(getpid())"))
        withExtendedLifetime(store) {}
    }

    @Test("with a file in the place of quarantine/: what cannot be put aside stays, and is said")
    func noQuarantine() throws {
        let scratch = Scratch()
        try Self.stopped(scratch.path)
        let stray = "ckpt-00000000000000ff"
        try Data([1, 2, 3]).write(to: Self.url(scratch, stray))
        try Data([1]).write(to: Self.url(scratch, "quarantine"))
        for _ in 0..<2 {
            let host = try Host(scratch.path)
            #expect(host.topics.contains("kept too"))
            #expect(host.store.recovered.report.setAside == [stray])
            #expect(host.store.warnings.contains { $0.contains(stray) && $0.contains("quarantine") })
            #expect(try scratch.files("ckpt-").contains(stray))
            host.thread.stop()
        }
    }

    @Test(
        "with a directory in the place of any file: it goes to quarantine/, and the rest is served",
        arguments: [
            "FORMAT", "seg-", "ckpt-", "reserve", "free-0000000000000077.log", "old-0000000000000077.log",
        ])
    func directories(prefix: String) throws {
        let scratch = Scratch()
        try Self.stopped(scratch.path)
        let name = try scratch.files(prefix).first ?? prefix
        // Twice: what is in quarantine/ from the first time is in the way of the second.
        for round in 1...2 {
            try Self.replaceByDirectory(scratch.path + "/" + name)
            let host = try Host(scratch.path)
            let report = host.store.recovered.report
            #expect(report.setAside == [name] || report.formatIsDamaged && name == "FORMAT")
            #expect(!host.store.warnings.contains { $0.contains("cannot") }, "\(host.store.warnings)")
            if prefix != "seg-" { #expect(host.topics.contains("kept too")) }
            host.append("more")
            try host.close()
            host.thread.stop()
            let quarantine = try FileManager.default.contentsOfDirectory(
                atPath: scratch.path + "/quarantine")
            #expect(quarantine.sorted() == (round == 1 ? [name] : [name, name + ".2"]))
        }
    }

    @Test(
        "whose FORMAT is damaged before there is any log: it begins anew, with a word",
        arguments: [nil, 0, 100, pageBytes])
    func formatAlone(bytesOfSegment: Int?) throws {
        let scratch = Scratch()
        _ = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        let segment = Self.url(scratch, StoreFile.segment(1).name)
        if let bytesOfSegment { try Data(repeating: 7, count: bytesOfSegment).write(to: segment) }
        var bytes = try Data(contentsOf: Self.url(scratch, "FORMAT"))
        bytes[20] ^= 1
        try bytes.write(to: Self.url(scratch, "FORMAT"))
        let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        #expect(store.warnings.contains { $0.contains("FORMAT was damaged") })
        #expect(!FileManager.default.fileExists(atPath: segment.path))
    }

    @Test("whose FORMAT is damaged, and a segment that may hold a log is not to be read: nothing is touched")
    func formatAndSegment() throws {
        let scratch = Scratch()
        _ = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        let segment = Self.url(scratch, StoreFile.segment(1).name)
        for name in ["FORMAT", segment.lastPathComponent] {
            try Data(repeating: 7, count: pageBytes + 1).write(to: Self.url(scratch, name))
        }
        #expect(throws: StoreError.self) {
            try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        }
        for name in ["FORMAT", segment.lastPathComponent] {
            #expect(
                try Data(contentsOf: Self.url(scratch, name)) == Data(repeating: 7, count: pageBytes + 1))
        }
        #expect(!FileManager.default.fileExists(atPath: Self.url(scratch, "quarantine").path))
    }

    @Test("whose FORMAT cannot even be read: its log is served, and FORMAT is written anew")
    func formatUnreadable() throws {
        let scratch = Scratch()
        try Self.stopped(scratch.path)
        let format = Self.url(scratch, "FORMAT")
        try FileManager.default.removeItem(at: format)
        try FileManager.default.createSymbolicLink(atPath: format.path, withDestinationPath: format.path)
        let host = try Host(scratch.path)
        #expect(host.topics.contains("kept too"))
        #expect(host.store.recovered.report.formatIsDamaged)
        host.thread.stop()
        #expect(
            try StoreFormat(decoding: Array(Data(contentsOf: format))).store == host.store.recovered.store)
    }

    @Test("on a disk that is read-only: what is on it is served, and what could not be done is said")
    func readOnly() throws {
        guard let disk = SmallDisk(megabytes: 16) else { return }
        let path = disk.mountPoint + "/state"
        try Self.stopped(path)
        for name in ["ckpt-00000000000000ff", "ckpt-0000000000000001.tmp"] {
            #expect(FileManager.default.createFile(atPath: path + "/" + name, contents: Data([1, 2, 3])))
        }
        #expect(disk.remount(readOnly: true))
        do {
            let host = try Host(path)
            #expect(host.topics.contains("kept too"))
            for part in ["LOCK", "ckpt-00000000000000ff", "ckpt-0000000000000001.tmp"] {
                #expect(
                    host.store.warnings.contains {
                        $0.contains(part) && $0.contains("Read-only file system")
                    },
                    "\(host.store.warnings)")
            }
            #expect(throws: StoreError.self) {
                try DiskStore.open(path: path, allowVolatile: true) { _, _ in }
            }
            host.append("not taken")
            try host.settle()
            #expect(host.journal.hasFailed)
            // The disk is well again, and nothing is started anew.
            #expect(disk.remount(readOnly: false))
            try host.settle(after: 5000)
            #expect(!host.journal.hasFailed)
            try host.close()
            host.thread.stop()
        }
        let host = try Host(path)
        #expect(host.topics.contains("kept too") && host.topics.last == "not taken")
        var report = RecoveryReport()
        report.setAside = ["ckpt-00000000000000ff"]
        report.unfinished = ["ckpt-0000000000000001.tmp"]
        #expect(host.store.recovered.report == report)
        #expect(host.store.warnings == [])
        host.thread.stop()
    }

    @Test("on a disk without a free block: LOCK is taken, and damage is reported though it cannot be copied")
    func full() throws {
        guard let disk = SmallDisk(megabytes: 16) else { return }
        let path = disk.mountPoint + "/state"
        try Self.stopped(path)
        #expect(
            FileManager.default.createFile(
                atPath: path + "/ckpt-00000000000000ff", contents: Data([1, 2, 3])))
        try SmallDisk.fill(disk.mountPoint + "/ballast")
        let host = try Host(path)
        #expect(host.topics.contains("kept too"))
        #expect(host.store.recovered.report.setAside == ["ckpt-00000000000000ff"])
        #expect(!host.store.warnings.contains { $0.contains("LOCK") }, "\(host.store.warnings)")
        host.thread.stop()
    }
}
