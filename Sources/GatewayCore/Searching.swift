extension BidirectionalCollection where Index == Int {
    /// The first place whose element belongs to the second part, of a list in which those come behind all others;
    /// the end when none does.
    ///
    /// - Complexity: O(log count)
    @inlinable package func partitioningIndex(where belongsToSecond: (Element) -> Bool) -> Int {
        var low = startIndex
        var high = endIndex
        while low < high {
            let middle = low + (high - low) / 2
            if belongsToSecond(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Where the element with this number is, in a list whose numbers rise by one at least; nil when there is none.
    ///
    /// - Complexity: O(1) while none is missing before it, else O(log count)
    @inlinable package func index(of number: UInt64, by numberOf: (Element) -> UInt64) -> Int? {
        guard let first = first.map(numberOf), let last = last.map(numberOf), first <= number, number <= last
        else { return nil }
        let guess = startIndex + Int(number - first)
        if guess < endIndex, numberOf(self[guess]) == number { return guess }
        // It is no further than that.
        let place = self[startIndex..<Swift.min(guess, endIndex)].partitioningIndex { numberOf($0) >= number }
        return place < endIndex && numberOf(self[place]) == number ? place : nil
    }
}
