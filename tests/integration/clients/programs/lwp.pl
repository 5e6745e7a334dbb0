# Uploads of Perl's LWP: lwp.pl URL FILE...; the last file is refused.
use strict;
use warnings;
use File::Basename;
use LWP::UserAgent;

my ($url, @files) = @ARGV;
my $agent = LWP::UserAgent->new(keep_alive => 1, timeout => 60);
$| = 1;

sub body_of {
    open my $file, "<:raw", shift or die $!;
    local $/;
    return scalar <$file>;
}

sub answer_of {
    my ($request, $body, %how) = @_;
    $request->header(Connection => "close") if $how{close};
    if ($how{chunked}) {    # a function as content has no length
        $request->content(sub { return substr $body, 0, 50_000, "" });
    } elsif (defined $body) {
        $request->content($body);
        $request->header("Content-Length" => length $body);
    }
    my $answer = $agent->request($request);
    return $answer->content . " " . $answer->code . "\n";
}

sub post { return answer_of(HTTP::Request->new(POST => "$url$_[0]"), @_[1 .. $#_]) }

print "GET ", answer_of(HTTP::Request->new(GET => "$url/get"));
for my $file (@files) {
    my ($body, $size) = (body_of($file), basename($file));
    print "plain $size ", post("/plain", $body);
    # LWP ends an empty chunked body twice if no answer has come yet, and the second end breaks the next request.
    print "chunked $size ", post("/chunked", $body, chunked => 1) if $size;
}
my $body = body_of($files[-1]);
print "kept plain ", post("/refused/401", $body);
print "kept chunked ", post("/refused/404", $body, chunked => 1);
print "closed plain ", post("/refused/413", $body, close => 1);
print "closed chunked ", post("/refused/429", $body, close => 1, chunked => 1);
print "after ", answer_of(HTTP::Request->new(GET => "$url/after"));
