// Each sync that the disk owes the journal, and the order of those that belong together. Three have no mutant: those of the
// directory behind a deletion, behind a segment that becomes free, and behind a checkpoint. What is deleted or becomes free is
// known to a durable checkpoint as complete and owed to nobody, or a merged file stands for it: with its old name back after a
// power cut it is let go again, unread, whatever its first page has become meanwhile. Of two checkpoints the older is the one
// that deletions rely on, and what was deleted behind it, or the segment begun since, has synced its name; only a store with
// no more than two checkpoints, and nothing deleted and no segment begun between them, has none that does.
extension Mutant {
    private static let disk = "Tests/Simulation/SimulatedDisk.swift"
    private static let recovery = "Sources/Journal/Recovery.swift"
    private static let checkpoints = "Sources/Journal/JournalCheckpoints.swift"

    static let syncing: [Mutant] = [
        Mutant(
            "sync-batch", "a batch is written and not synced",
            Edit(
                disk,
                "try write(file.name, offset, bytes)\n            try sync(file.name)\n        case .writeFooter",
                "try write(file.name, offset, bytes)\n            if !MUTANT { try sync(file.name) }\n"
                    + "        case .writeFooter")),
        Mutant(
            "sync-new-header", "the first page of a new segment is not synced",
            Edit(
                disk,
                "try write(file.name, 0, page)\n            try sync(file.name)",
                "try write(file.name, 0, page)\n            if !MUTANT { try sync(file.name) }")),
        Mutant(
            "sync-new-name", "the directory is not synced behind a new segment",
            Edit(
                disk, "try syncDirectory()\n        case .reuseSegment",
                "if !MUTANT { try syncDirectory() }\n        case .reuseSegment")),
        Mutant(
            "sync-reused-header", "the first page of a segment that is used again is not synced",
            Edit(disk, "try sync(free.name)", "if !MUTANT { try sync(free.name) }")),
        Mutant(
            "sync-reused-name", "the directory is not synced behind a segment that is used again",
            Edit(
                disk, "try rename(free.name, file.name)\n            try syncDirectory()",
                "try rename(free.name, file.name)\n            if !MUTANT { try syncDirectory() }")),
        Mutant(
            "reused-name-first", "a file is renamed before its page is the segment's own",
            Edit(
                disk, "            try write(free.name, 0, page)\n",
                "            if MUTANT {\n                try rename(free.name, file.name)\n"
                    + "                try syncDirectory()\n                try write(file.name, 0, page)\n"
                    + "                try sync(file.name)\n                return .done\n            }\n"
                    + "            try write(free.name, 0, page)\n")),
        Mutant(
            "sync-checkpoint", "a checkpoint is renamed before it is synced",
            Edit(disk, "try sync(file.temporaryName)", "if !MUTANT { try sync(file.temporaryName) }")),
        Mutant(
            "sync-part", "a part of a merged file is not synced", in: .compaction,
            Edit(
                disk,
                "try write(file.name, offset, bytes)\n            try sync(file.name)\n        case .publish",
                "try write(file.name, offset, bytes)\n            if !MUTANT { try sync(file.name) }\n"
                    + "        case .publish")),
        Mutant(
            "sync-merged-name", "the directory is not synced behind a merged file", in: .compaction,
            Edit(
                disk, "try rename(part.name, file.name)\n            try syncDirectory()",
                "try rename(part.name, file.name)\n            if !MUTANT { try syncDirectory() }")),
        Mutant(
            "sync-start", "what a start reads is not synced",
            Edit(
                recovery, "guard synced.insert(id).inserted else { return }",
                "guard !MUTANT, synced.insert(id).inserted else { return }")),
        Mutant(
            "sync-start-names", "the names that a start reads are not synced", in: .compaction,
            Edit(
                recovery, "try reader.makeDirectoryDurable()",
                "if !MUTANT { try reader.makeDirectoryDurable() }")),
        Mutant(
            "checkpoint-first", "a checkpoint is written before the log that it stands for is durable",
            Edit(checkpoints, "durable >= position\n", "MUTANT || durable >= position\n")),
        Mutant(
            "delete-owed", "a segment is deleted although somebody is owed what is in it",
            Edit(
                checkpoints, "if segment.isOwed(by: state) { continue }",
                "if !MUTANT, segment.isOwed(by: state) { continue }")),
    ]
}
