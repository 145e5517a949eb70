import Foundation
import MQTT
import Testing
import Workbench

@testable import powercut

/// The rig that cuts the power of a real disk, `make powercut` at length: that it runs, that it sees what it should, and
/// what its disk does.
@Suite("power cuts of a real file system")
struct PowerCutTests {
    /// - Returns: nil where the rig cannot run.
    private func powercut(_ arguments: String...) throws -> (ending: ChildProcess.Ending?, text: String)? {
        let place = try Workplace("tidegate-test")
        defer { place.remove() }
        let child = try ChildProcess(
            Gateway.besideThisBuild("powercut"),
            ["--gateway", Gateway.executableOfThisBuild, "--seed", "\(Seed.ofThisRun)"] + arguments,
            log: place.file("log"))
        let ending = child.ended(within: 120)
        guard ending != .exited(77) else {
            print(child.log)
            return nil
        }
        return (ending, child.log)
    }

    @Test("no message that was acknowledged is lost with the power")
    func nothingLost() throws {
        guard let (ending, text) = try powercut("--images", "8", "--rounds", "1", "--seconds", "3") else {
            return
        }
        #expect(ending == .exited(0), "\(text)")
        #expect(text.contains("8 images"), "\(text)")
    }

    @Test("a disk that only says that it flushes is found out")
    func flushesMatter() throws {
        guard
            let (ending, text) = try powercut(
                "--images", "4", "--rounds", "1", "--seconds", "3", "--no-cloud", "--ignore-flushes")
        else { return }
        #expect(ending == .exited(1), "\(text)")
        #expect(text.contains("lost: ") && !text.contains("lost: 0,"), "\(text)")
    }
}

@Suite("the rig's disk")
struct RecordingTests {
    private func image(_ writes: (Int, UInt8)...) -> Image {
        var image = Image(byteCount: 16 * 4096)
        for (page, value) in writes {
            image.write([UInt8](repeating: value, count: 4096)[...], at: page * 4096)
        }
        return image
    }

    private func recording() -> Recording {
        let disk = RecordedDisk(Image(byteCount: 16 * 4096))
        #expect(disk.write([UInt8](repeating: 1, count: 4096), at: 4096))
        disk.flush()
        #expect(disk.write([UInt8](repeating: 2, count: 4096), at: 2 * 4096))
        #expect(disk.write([UInt8](repeating: 3, count: 4096), at: 3 * 4096))
        return disk.recording
    }

    @Test("what was flushed is there whatever the cut", arguments: Recording.Fate.allCases)
    func flushed(fate: Recording.Fate) {
        for seed in UInt64(1)...200 {
            var random = SplitMix64(seed: seed)
            let cut = recording().cut(at: 4, fate, &random)
            #expect(cut.read(4096..<8192).allSatisfy { $0 == 1 })
            #expect(cut.read(2 * 4096..<3 * 4096).allSatisfy { $0 == 0 || $0 == 2 })
        }
    }

    @Test("what comes after the cut is not there")
    func later() {
        var random = SplitMix64(seed: 1)
        #expect(recording().cut(at: 3, .kept, &random) == image((1, 1), (2, 2)))
        #expect(recording().cut(at: 1, .dropped, &random) == image())
    }

    @Test("without a flush, what was written may be there, or in part, or not, in any order")
    func unflushed() {
        var seen: [Recording.Fate: Set<[UInt8]>] = [:]
        for fate in Recording.Fate.allCases {
            for seed in UInt64(1)...200 {
                var random = SplitMix64(seed: seed)
                let cut = recording().cut(at: 4, fate, &random)
                // The first and the last sector of each page.
                let places = [2 * 4096, 3 * 4096 - 1, 3 * 4096, 4 * 4096 - 1]
                seen[fate, default: []].insert(places.flatMap { cut.read($0..<$0 + 1) })
            }
        }
        #expect(seen[.kept] == [[2, 2, 3, 3]])
        #expect(seen[.dropped] == [[0, 0, 0, 0]])
        #expect(seen[.torn] == [[0, 0, 0, 0], [2, 0, 0, 0], [2, 2, 0, 0], [2, 2, 3, 0], [2, 2, 3, 3]])
        #expect(seen[.reordered] == [[0, 0, 0, 0], [2, 2, 0, 0], [0, 0, 3, 3], [2, 2, 3, 3]])
        #expect(seen[.shredded]?.count == 16)
    }

    @Test("ext4's superblock is not torn")
    func superblock() {
        let disk = RecordedDisk(Image(byteCount: 16 * 4096))
        #expect(disk.write([UInt8](repeating: 7, count: 4096), at: 0))
        for seed in UInt64(1)...200 {
            var random = SplitMix64(seed: seed)
            let cut = disk.recording.cut(at: 1, .shredded, &random)
            #expect(Set(cut.read(1024..<2048)).count == 1)
        }
    }

    @Test("nothing is written beyond the end")
    func end() {
        let disk = RecordedDisk(Image(byteCount: 4096))
        #expect(!disk.write([1, 2], at: 4095))
        #expect(disk.eventCount == 0)
    }
}
