import Testing

@testable import GatewayCore

/// How subscriptions and retained messages are found; what they make of it is tested with SUBSCRIBE.
@Suite("Topic tree")
struct TopicTreeTests {
    @Test("Levels beside each other are found, few or many, and removed again", arguments: [1, 8, 9, 40])
    func siblings(count: Int) {
        var tree = TopicTree<Int>()
        for i in 0..<count { tree.update(path(i)) { $0 = i } }
        // One that is there already is changed in its place.
        for i in 0..<count { tree.update(path(i)) { $0 = $0.map { $0 + 100 } } }
        #expect((0..<count).allSatisfy { tree[path($0)] == $0 + 100 })
        #expect(tree[path(count)] == nil)
        guard let parent = tree.child(of: TopicTree<Int>.root, level("site")) else {
            Issue.record("nothing is there")
            return
        }
        let names = tree.children(of: parent).map { String(decoding: $0.level, as: UTF8.self) }
        #expect(names == (0..<count).map { "sensor \($0)" }.sorted())
        for i in stride(from: 0, to: count, by: 2) { tree.update(path(i)) { $0 = nil } }
        #expect((0..<count).allSatisfy { tree[path($0)] == ($0.isMultiple(of: 2) ? nil : $0 + 100) })
        for i in stride(from: 1, to: count, by: 2) { tree.update(path(i)) { $0 = nil } }
        #expect(tree.child(of: TopicTree<Int>.root, level("site")) == nil)
        tree.update(path(0)) { $0 = 7 }
        #expect(tree[path(0)] == 7)
        #expect(tree[path(1)] == nil)
    }

    private func path(_ i: Int) -> ArraySlice<UInt8> { level("site/sensor \(i)") }
    private func level(_ text: String) -> ArraySlice<UInt8> { Array(text.utf8)[...] }
}
